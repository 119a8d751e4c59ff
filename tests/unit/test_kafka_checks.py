"""What the doctor says of a cluster, on answers such as a cluster gives."""

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from go2hooks.cli.kafka_checks import _check_replicas, _check_sessions
from go2hooks.kafka.admin import _differing, as_commands, wanted_topics
from go2hooks.settings import Settings


class Client:
    """Answers for `describe_configs`."""

    def __init__(self, in_sync: dict[str, str]) -> None:
        self._in_sync = in_sync

    def describe_configs(self, resources: list[Any]) -> dict[Any, Future[dict[str, Any]]]:
        answers = {}
        for resource in resources:
            answers[resource] = Future()
            value = SimpleNamespace(value=self._in_sync[resource.name])
            answers[resource].set_result({"min.insync.replicas": value})
        return answers


def cluster(brokers: int, **replicas: int) -> Any:
    """A broker that is away is in no list but those of the replicas."""

    def partition(count: int) -> SimpleNamespace:
        return SimpleNamespace(replicas=list(range(count)), isrs=list(range(min(count, brokers))))

    topics = {
        name.replace("_", "."): SimpleNamespace(partitions={0: partition(count)}) for name, count in replicas.items()
    }
    return SimpleNamespace(brokers=dict.fromkeys(range(brokers)), topics=topics)


def findings(metadata: Any, **in_sync: str) -> list[Any]:
    return list(_check_replicas(Client({k.replace("_", "."): v for k, v in in_sync.items()}), metadata, "go2."))  # type: ignore[arg-type]


def test_one_broker_is_no_problem_but_is_said() -> None:
    [finding] = findings(cluster(1, go2_deliveries=1))
    assert not finding.remedy
    assert "development" in finding.detail


def test_topics_that_a_lost_broker_would_take_with_it_are_named() -> None:
    found = findings(
        cluster(3, go2_deliveries=3, go2_events_click=1, other=1), go2_deliveries="2", go2_events_click="1"
    )
    assert [finding.detail for finding in found] == [
        "fewer than 3 replicas: go2.events.click",
        "min.insync.replicas is below 2: go2.events.click",
    ]
    assert all(finding.remedy for finding in found)


def test_a_safe_cluster_is_called_safe() -> None:
    [finding] = findings(cluster(3, go2_deliveries=3), go2_deliveries="2")
    assert not finding.remedy


@pytest.mark.parametrize("left", [1, 2])
def test_brokers_that_are_away_are_missed(left: int) -> None:
    [finding] = findings(cluster(left, go2_deliveries=3), go2_deliveries="2")
    assert finding.detail == "replicas are not in sync: go2.deliveries"
    assert finding.remedy


@pytest.mark.parametrize(("replication", "in_sync"), [(-1, None), (1, None), (2, None), (3, "2"), (5, "2")])
def test_two_replicas_have_to_acknowledge_where_there_are_three(replication: int, in_sync: str | None) -> None:
    for topic in wanted_topics(Settings(topic_replication=replication)):
        assert topic.config.get("min.insync.replicas") == in_sync
        assert topic.config["unclean.leader.election.enable"] == "false"


class NotQuiteKafka:
    """Tells of a topic's settings only some."""

    def __init__(self, **told: str) -> None:
        self._told = {name.replace("_", "."): SimpleNamespace(value=value) for name, value in told.items()}

    def describe_configs(self, resources: list[Any]) -> dict[Any, Future[dict[str, Any]]]:
        answers = {resource: Future() for resource in resources}
        for answer in answers.values():
            answer.set_result(self._told)
        return answers


def test_a_broker_that_does_not_tell_of_a_setting_is_not_asked_to_change_it() -> None:
    topic = wanted_topics(Settings())[0]
    assert _differing(NotQuiteKafka(retention_ms="-1"), topic) == {}  # type: ignore[arg-type]
    assert _differing(NotQuiteKafka(retention_ms="1"), topic) == {"retention.ms": "1"}  # type: ignore[arg-type]
    assert "not tell" in _check_sessions(Settings(), NotQuiteKafka(), 1).detail  # type: ignore[arg-type]


def test_a_topic_setting_that_a_policy_refuses_can_be_left_out() -> None:
    settings = Settings(topic_config_left_out="unclean.leader.election.enable, retention.bytes")
    for topic in wanted_topics(settings):
        assert {"unclean.leader.election.enable", "retention.bytes"}.isdisjoint(topic.config)
        assert "retention.ms" in topic.config


def test_the_printed_commands_create_every_topic_as_it_is_wanted() -> None:
    commands = list(as_commands(Settings(topic_replication=3)))
    assert [command.split("--topic ")[1].split()[0] for command in commands] == [
        topic.name for topic in wanted_topics(Settings())
    ]
    assert all("--replication-factor 3" in c and "--config min.insync.replicas=2" in c for c in commands)
