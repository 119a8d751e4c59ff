"""How old what waits is."""

from go2hooks.core.flow.lag import UnfinishedAge, UnreadAge

NIGHT_MS = 8 * 3600 * 1000


def test_nothing_ahead_is_no_lag():
    age = UnreadAge()
    age.read("clicks", 1_000)
    assert age.seconds("clicks", 0, 1_000 + NIGHT_MS) == 0


def test_the_first_event_after_an_idle_night_is_not_a_night_old():
    age = UnreadAge()
    age.read("clicks", 0)
    age.seconds("clicks", 0, NIGHT_MS)
    assert age.seconds("clicks", 1, NIGHT_MS + 1_000) == 1.0


def test_the_age_grows_while_nothing_is_read():
    age = UnreadAge()
    age.seconds("clicks", 0, 10_000)
    assert [age.seconds("clicks", 5, now) for now in (11_000, 12_000, 70_000)] == [1.0, 2.0, 60.0]


def test_reading_an_old_backlog_shows_how_far_the_reading_is_behind():
    age = UnreadAge()
    age.seconds("clicks", 0, 10_000)
    age.read("clicks", 40_000)
    assert age.seconds("clicks", 5, 100_000) == 60.0
    age.read("clicks", 95_000)
    assert age.seconds("clicks", 5, 100_000) == 5.0


def test_a_backlog_that_was_there_at_the_start_ages_from_then_on_until_a_message_tells_its_age():
    age = UnreadAge()
    assert age.seconds("clicks", 5, 100_000) == 0
    assert age.seconds("clicks", 5, 103_000) == 3.0


def test_topics_do_not_mix():
    age = UnreadAge()
    age.seconds("clicks", 0, 10_000)
    age.seconds("links", 0, 50_000)
    assert [age.seconds(topic, 1, 60_000) for topic in ("clicks", "links")] == [50.0, 10.0]


def test_a_clock_that_was_set_back_gives_no_negative_age():
    age = UnreadAge()
    age.read("clicks", 5_000)
    assert age.seconds("clicks", 1, 4_000) == 0


def test_the_oldest_unfinished_message_counts_not_the_youngest():
    age = UnfinishedAge()
    for offset in range(100):
        age.begin(offset, offset * 100)
    assert age.seconds(0, 20_000) == 20.0
    assert 10.0 <= age.seconds(99, 20_000) <= 10.5  # to the 250 ms that a mark stands for


def test_what_is_finished_has_no_age_and_what_follows_begins_afresh():
    age = UnfinishedAge()
    age.begin(0, 0)
    assert age.seconds(None, NIGHT_MS) == 0
    age.begin(1, NIGHT_MS)
    assert age.seconds(1, NIGHT_MS + 2_000) == 2.0


def test_what_waits_for_its_time_is_not_late():
    age = UnfinishedAge()
    age.begin(7, 60_000)
    assert [age.seconds(7, now) for now in (1_000, 60_000, 61_500)] == [0, 0, 1.5]


def test_a_million_messages_leave_few_marks():
    age = UnfinishedAge()
    for offset in range(1_000_000):
        age.begin(offset, offset // 100)  # 10 s of messages
    assert len(age._marks) <= 41
