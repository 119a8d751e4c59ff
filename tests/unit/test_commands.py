"""Commands from the event loop to the poll thread: about partitions as the sink knows them, and no others."""

from collections.abc import Collection

import pytest

from go2hooks.kafka.commands import Commands
from go2hooks.kafka.partitions import PartitionKey

KEY, OTHER = PartitionKey("t", 0), PartitionKey("t", 1)


@pytest.fixture
def paused() -> list[PartitionKey]:
    return []


@pytest.fixture
def commands(paused: list[PartitionKey]) -> Commands:
    """Of a consumer whose sink knows both partitions."""
    commands = Commands()
    commands.heard(commands.assigned([KEY, OTHER]))
    return commands


def test_commands_are_obeyed_in_order(commands):
    obeyed: list[tuple[str, Collection[PartitionKey]]] = []
    commands.put([KEY], lambda keys: obeyed.append(("pause", keys)))
    commands.put([KEY, OTHER], lambda keys: obeyed.append(("store", keys)))
    assert obeyed == []
    commands.obey()
    commands.obey()
    assert obeyed == [("pause", [KEY]), ("store", [KEY, OTHER])]


def test_a_command_about_a_partition_that_has_gone_is_dropped(commands, paused):
    commands.put([KEY], paused.extend)
    commands.put([KEY, OTHER], paused.extend)
    commands.gone([KEY])
    commands.obey()
    assert paused == [OTHER]


def test_a_command_about_an_assignment_that_is_over_does_not_touch_the_next_one(commands, paused):
    """The partition would stay paused for good: the sink that reads it anew knows of no pause."""
    commands.put([KEY], paused.extend)  # on its way, when the partition goes and comes back
    commands.gone([KEY])
    generation = commands.assigned([KEY])
    commands.put([KEY], paused.extend)  # the sink has not heard of it yet
    commands.obey()
    assert paused == []
    commands.heard(generation)
    commands.put([KEY], paused.extend)
    commands.obey()
    assert paused == [KEY]
