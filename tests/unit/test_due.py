"""The due buffer: everything once, in due order, never early; paused when full, resumed at half."""

from hypothesis import given
from hypothesis import strategies as st

from go2hooks.core.flow.due import DueBuffer


@given(dues=st.lists(st.integers(0, 50)), looks=st.lists(st.integers(0, 60)))
def test_items_come_out_once_in_due_order_and_never_early(dues, looks):
    buffer: DueBuffer[int] = DueBuffer(10, 1000)
    for number, due in enumerate(dues):
        buffer.add(due, 1, number)
    out: list[int] = []
    for now in [*sorted(looks), 50]:
        released = list(buffer.pop_due(now))
        assert all(dues[number] <= now for number in released)
        assert buffer.next_due_ms() is None or buffer.next_due_ms() > now
        out += released
    assert out == sorted(range(len(dues)), key=lambda number: (dues[number], number))
    assert len(buffer) == 0


def test_a_reader_that_stops_leaves_the_rest():
    buffer: DueBuffer[str] = DueBuffer(10, 1000)
    for name in ("a", "b", "c"):
        buffer.add(1, 1, name)
    assert next(buffer.pop_due(5)) == "a"
    assert (len(buffer), buffer.next_due_ms()) == (2, 1)


def test_a_full_buffer_asks_for_a_pause_once_and_for_the_end_of_it_when_half_is_gone():
    buffer: DueBuffer[int] = DueBuffer(4, 1000)
    for n in range(3):
        buffer.add(n, 1, n)
        assert not buffer.should_pause()
    buffer.add(3, 1, 3)
    assert buffer.should_pause()
    buffer.paused = True
    assert not buffer.should_pause()
    assert list(buffer.pop_due(0)) == [0]
    assert not buffer.should_resume()
    assert list(buffer.pop_due(1)) == [1]
    assert buffer.should_resume()
    buffer.paused = False
    assert not buffer.should_resume()


def test_a_buffer_is_full_by_bytes_too_and_counts_them_off_as_items_leave():
    buffer: DueBuffer[int] = DueBuffer(100, 1000)
    buffer.add(0, 999, 0)
    assert not buffer.should_pause()
    buffer.add(1, 1, 1)
    assert buffer.should_pause()
    buffer.paused = True
    buffer.add(2, 501, 2)
    assert list(buffer.pop_due(1)) == [0, 1]
    assert not buffer.should_resume()
    assert list(buffer.pop_due(2)) == [2]
    assert buffer.should_resume()
