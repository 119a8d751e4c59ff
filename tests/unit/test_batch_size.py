"""How much is done at a time beside what must not wait."""

from go2hooks.core.flow.batch_size import AdaptiveBatch


def test_more_each_time_up_to_the_most_and_half_as_much_once_others_are_hindered():
    pace = AdaptiveBatch(least=10, most=100, step=30)
    seen = [pace.items]
    for hindered in (False, False, False, False, True, True, True, True, False):
        pace.note(hindered=hindered)
        seen.append(pace.items)
    assert seen == [10, 40, 70, 100, 100, 50, 25, 12, 10, 40]
