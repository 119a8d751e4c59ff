"""How fast replays are sent: by their rate, and not while dispatchers have enough to do."""

import pytest

from services.router.replay.pacing import Throttle


class World:
    def __init__(self) -> None:
        self.now, self.backlog, self.asked = 100.0, 0, 0

    def measure(self) -> int:
        self.asked += 1
        return self.backlog


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def throttle(world: World) -> Throttle:
    return Throttle(1000, world.measure, lambda: world.now)


def test_no_more_is_sent_than_the_rate_allows(world, throttle):
    sent, until = 0, world.now + 10
    while world.now < until:
        wait_s = throttle.wait_s()
        if wait_s:
            world.now += wait_s
        else:
            throttle.sent(500)
            sent += 500
            world.now += 0.01  # what it takes
    assert 10_000 <= sent <= 11_000


def test_a_pause_is_not_made_up_for_by_a_burst(world, throttle):
    throttle.sent(500)
    world.now += 60
    sent = 0
    while not throttle.wait_s():
        throttle.sent(500)
        sent += 500
    assert sent <= 1000


def test_nothing_is_sent_while_dispatchers_have_a_backlog(world, throttle):
    world.backlog = 1_000_000
    for _ in range(20):
        assert throttle.wait_s() > 0
        assert throttle.is_held
        world.now += 0.1
    world.backlog = 0
    world.now += 0.5
    assert throttle.wait_s() == 0
    assert not throttle.is_held


def test_kafka_is_asked_a_few_times_a_second_at_most(world, throttle):
    for _ in range(1000):
        throttle.wait_s()
        world.now += 0.01
    assert world.asked <= 50
