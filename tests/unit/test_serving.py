"""How many connections a receiver serves at once, as far as it has shown."""

import pytest

from go2hooks.core.flow.serving import Opening, Serving


def answered_on(serving: Serving, count: int = 1, at: float = 0.0) -> None:
    """So many connections are opened and answered on after ten milliseconds."""
    for opening in [serving.begin(at) for _ in range(count)]:
        serving.first_answer(opening, at + 0.01)


def made_room(serving: Serving, opening: Opening, now: float) -> None:
    """One connection is closed, and then a worker answers the one that waited."""
    opening.has_room = True
    serving.lose()
    serving.first_answer(opening, now)


def test_none_is_opened_while_one_that_was_opened_is_overtaken():
    serving = Serving()
    answered_on(serving)
    waiting = serving.begin(1.0)
    assert serving.may_open()
    serving.answer(1.0, 1.01)
    assert serving.may_open()  # it may still be connecting
    serving.answer(1.08, 1.09)
    assert not serving.may_open()
    serving.first_answer(waiting, 1.2)
    assert serving.may_open()


def test_of_many_that_are_answered_on_a_few_may_be_overtaken():
    serving = Serving()
    answered_on(serving, 8)
    for overtaken in range(3):
        assert serving.may_open(), overtaken
        serving.begin(1.0)
        serving.answer(1.9, 2.0)
    assert not serving.may_open()


def test_a_slow_receiver_gets_its_connections_while_its_answers_take_no_longer_than_usual():
    serving = Serving()
    for opening in [serving.begin(0.0) for _ in range(4)]:
        serving.first_answer(opening, 3.0)
    serving.begin(4.0)
    serving.answer(3.0, 6.0)
    assert serving.may_open()
    assert serving.overdue(14.0, 2.0) is None
    assert serving.overdue(16.1, 2.0) is not None


def test_that_a_first_answer_waited_for_a_worker_is_forgotten_with_the_next_answer():
    serving = Serving()
    answered_on(serving, at=0.0)
    serving.first_answer(serving.begin(0.0), 5.0)
    serving.answer(5.0, 5.01)
    opening = serving.begin(6.0)
    assert serving.overdue(8.1, 2.0) is opening


def test_where_nothing_is_answered_nothing_is_overtaken_nor_overdue():
    serving = Serving()
    for _ in range(40):
        assert serving.may_open()
        serving.begin(0.0)
    assert serving.overdue(100.0, 2.0) is None


def test_what_waits_for_long_is_overdue_one_after_the_other():
    serving = Serving()
    answered_on(serving)
    first, second = serving.begin(1.0), serving.begin(1.5)
    assert serving.overdue(2.9, 2.0) is None
    assert serving.overdue(3.1, 2.0) is first
    first.has_room = True
    assert serving.overdue(3.1, 2.0) is None
    assert serving.overdue(3.6, 2.0) is second
    serving.give_up(second)
    assert serving.overdue(3.6, 2.0) is None


@pytest.mark.parametrize("workers", [1, 8])
def test_who_answers_only_when_room_was_made_has_few_workers(workers):
    serving = Serving()
    answered_on(serving, workers)
    made_room(serving, serving.begin(1.0), 3.0)
    assert serving.is_few
    assert not serving.may_open()
    serving.lose()
    assert serving.may_open()
    serving.begin(4.0)
    assert not serving.may_open()


def test_few_workers_are_forgotten_after_a_while():
    serving = Serving()
    answered_on(serving, 2)
    made_room(serving, serving.begin(1.0), 3.0)
    serving.lose()
    serving.forget()
    assert serving.may_open()
    assert serving.is_unproven


def test_it_is_unproven_until_it_has_answered_on_two_at_once_or_has_shown_that_it_does_not():
    serving = Serving()
    assert not serving.is_unproven  # there is none yet
    answered_on(serving)
    assert serving.is_unproven
    second = serving.begin(1.0)
    assert not serving.is_unproven  # it is being seen
    serving.first_answer(second, 1.01)
    serving.lose()
    assert not serving.is_unproven
