"""The due buffer: everything once, in due order, never early; paused when full, resumed at half."""

from hypothesis import given
from hypothesis import strategies as st

from go2hooks.core.due import DueBuffer


@given(dues=st.lists(st.integers(0, 50)), looks=st.lists(st.integers(0, 60)))
def test_items_come_out_once_in_due_order_and_never_early(dues, looks):
    buffer: DueBuffer[int] = DueBuffer(10)
    for number, due in enumerate(dues):
        buffer.add(due, number)
    out: list[int] = []
    for now in [*sorted(looks), 50]:
        released = list(buffer.pop_due(now))
        assert all(dues[number] <= now for number in released)
        assert buffer.next_due_ms() is None or buffer.next_due_ms() > now
        out += released
    assert out == sorted(range(len(dues)), key=lambda number: (dues[number], number))
    assert len(buffer) == 0


def test_a_reader_that_stops_leaves_the_rest():
    buffer: DueBuffer[str] = DueBuffer(10)
    for name in ("a", "b", "c"):
        buffer.add(1, name)
    assert next(buffer.pop_due(5)) == "a"
    assert (len(buffer), buffer.next_due_ms()) == (2, 1)


def test_a_full_buffer_asks_for_a_pause_once_and_for_the_end_of_it_when_half_is_gone():
    buffer: DueBuffer[int] = DueBuffer(4)
    for n in range(3):
        buffer.add(n, n)
        assert not buffer.should_pause()
    buffer.add(3, 3)
    assert buffer.should_pause()
    buffer.paused = True
    assert not buffer.should_pause()
    assert list(buffer.pop_due(0)) == [0]
    assert not buffer.should_resume()
    assert list(buffer.pop_due(1)) == [1]
    assert buffer.should_resume()
    buffer.paused = False
    assert not buffer.should_resume()
