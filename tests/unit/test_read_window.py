"""The window of a consumer: what is handed over and not yet released, by messages and by bytes."""

import threading

from go2hooks.kafka.read_window import ReadWindow


def test_a_window_holds_so_many_small_messages():
    window = ReadWindow(10, unit_bytes=1000)
    window.take([1, 500, 1000])
    assert window.room == 7
    window.release()
    window.release(2)
    assert window.room == 10


def test_a_large_message_weighs_more():
    window = ReadWindow(10, unit_bytes=1000)
    assert [window.weigh(size) for size in (0, 1000, 1001, 2000, 2001)] == [1, 1, 2, 2, 3]
    window.take([500, 2001])
    assert window.room == 6


def test_a_smaller_window_takes_nothing_until_enough_is_released():
    window = ReadWindow(10, unit_bytes=1000)
    window.take([1] * 10)
    window.size = 4
    window.release(6)
    assert window.room == 0
    window.release(1)
    assert window.room == 1


def test_a_release_ends_a_wait_that_begins_after_it():
    window = ReadWindow(1, unit_bytes=1000)
    window.take([1])
    window.release()
    waiting = threading.Thread(target=window.wait, args=(60.0,))
    waiting.start()
    waiting.join(10.0)
    assert not waiting.is_alive()
