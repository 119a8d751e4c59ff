"""Token buckets."""

from hypothesis import given
from hypothesis import strategies as st

from go2hooks.core.flow.rate import TokenBuckets


def test_a_burst_is_allowed_and_then_the_rate() -> None:
    buckets = TokenBuckets(rate_per_s=2.0, burst=3)
    assert [buckets.take("a", 0.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert buckets.take("a", 0.49) > 0
    assert buckets.take("a", 0.5) == 0
    assert buckets.take("b", 0.5) == 0


def test_looking_takes_nothing() -> None:
    buckets = TokenBuckets(1.0, 1)
    assert [buckets.wait_s("a", 0.0), buckets.wait_s("a", 0.0), buckets.take("a", 0.0)] == [0, 0, 0]
    assert buckets.wait_s("a", 0.0) == 1.0


def test_memory_is_bounded_and_the_longest_unused_goes_first() -> None:
    buckets = TokenBuckets(0.001, 1, remembered=2)
    for key in ("a", "b", "c"):
        buckets.take(key, 0.0)
    assert len(buckets) == 2
    assert (buckets.wait_s("a", 0.0) > 0, buckets.wait_s("b", 0.0) > 0) == (False, True)


@given(
    st.lists(st.floats(0, 1), max_size=200),
    st.floats(0.1, 50),
    st.integers(1, 20),
)
def test_never_more_than_burst_and_rate_allow(pauses: list[float], rate: float, burst: int) -> None:
    buckets, now, taken = TokenBuckets(rate, burst), 0.0, 0
    for pause in pauses:
        now += pause
        taken += buckets.take("a", now) == 0
        assert taken <= burst + now * rate + 1e-6
