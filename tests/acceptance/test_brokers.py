"""Three brokers, each killed in turn under a stream: what Kafka acknowledged arrives, and goes on arriving meanwhile."""

import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Self
from urllib.request import urlopen

import psycopg
import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ClusterMetadata, ConfigResource, ResourceType
from recording import Endpoint, Recorder
from up_command import GO2HOOKS, UpCommand, call_api
from waiting import eventually

from go2hooks.cli.kafka_checks import _check_replicas
from go2hooks.core.domain.delivery import delivery_id
from go2hooks.core.domain.event import Event
from go2hooks.core.domain.samples import example_payload
from go2hooks.devstack.processes import accepts_connections
from go2hooks.postgres.api_keys import create_key
from go2hooks.producer import EventProducer, new_event_id

BROKERS = (1, 2, 3)
PER_S = 40
LONGEST_GAP_S = 20.0
PATIENCE_S = 240.0  # for what takes seconds on a machine that has nothing else to do
# Twelve keys for three partitions: whichever broker dies leads some of the stream.
ACCOUNTS = tuple(f"acc_{n}" for n in range(12))
ENV = {"GO2HOOKS_ALLOW_INSECURE_TARGETS": "true", "GO2HOOKS_TOPIC_PARTITIONS": "3"}


class Cluster:
    """A stack of three brokers, and what a test asks of them."""

    def __init__(self, data_dir: Path) -> None:
        self.up = UpCommand(data_dir, "--brokers", "3", **ENV)

    def wait_ready(self, not_by: object = None) -> None:
        """Until it announces itself, by other process ids than `not_by`."""
        self.endpoints = self.up.endpoints(lambda found: found["pids"] != not_by)
        self.addresses = self.endpoints["kafka"].split(",")
        self._admin = AdminClient({"bootstrap.servers": self.endpoints["kafka"], "log_level": 0})

    @property
    def id(self) -> str:
        return self._metadata().cluster_id

    def _metadata(self) -> ClusterMetadata:
        """Asked again when a broker hangs up, as after its start or its end: librdkafka says so and asks no other."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self._admin.list_topics(timeout=30)
            except KafkaException as error:
                if error.args[0].code() != KafkaError._TRANSPORT or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def run(self, *arguments: str, **env: str) -> str:
        """What a command of ours says, after it succeeded against this stack."""
        command = [GO2HOOKS, *arguments, "--data-dir", self.up.dir]
        environment = os.environ | ENV | env | {"COLUMNS": "200"}
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def replicas(self) -> dict[str, list[int]]:
        """How many replicas each partition of each topic has."""
        topics = self._metadata().topics
        return {name: [len(p.replicas) for p in topic.partitions.values()] for name, topic in topics.items()}

    def in_sync_everywhere(self) -> set[int]:
        """The brokers that are in sync for every partition."""
        topics = self._metadata().topics.values()
        return set(BROKERS).intersection(*(p.isrs for topic in topics for p in topic.partitions.values()))

    def remedies(self) -> list[str]:
        """What the doctor advises about the replicas."""
        return [finding.remedy for finding in _check_replicas(self._admin, self._metadata(), "go2.")]

    def config(self, topic: str, name: str) -> str:
        resource = ConfigResource(ResourceType.TOPIC, topic)
        return self._admin.describe_configs([resource])[resource].result(30)[name].value

    def controller(self) -> int:
        """The node that leads the controllers, as the newest vote of the nodes has it."""
        states = self.up.dir.glob("kafka/node-*/log/__cluster_metadata-0/quorum-state")
        return max((json.loads(path.read_bytes()) for path in states), key=lambda s: s["leaderEpoch"])["leaderId"]

    def pid(self, node: int) -> int:
        return json.loads((self.up.dir / "children.json").read_bytes())[f"Kafka {node}"][0]

    @contextmanager
    def without(self, node: int) -> Iterator[None]:
        """`kill -9`, and its successor stopped before it can serve, for as long as the block lasts."""
        port, killed = int(self.addresses[node - 1].partition(":")[2]), self.pid(node)
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: self.pid(node) != killed, within_s=PATIENCE_S)
        successor = self.pid(node)
        os.kill(successor, signal.SIGSTOP)
        try:
            yield
            assert not accepts_connections(port), "the broker was back too early"
        finally:
            os.kill(successor, signal.SIGCONT)


class Stream:
    """Clicks of all accounts, `PER_S` a second, until the block is left."""

    def __init__(self, bootstrap: str, webhooks: dict[str, str]) -> None:
        self._webhooks = webhooks
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._producer = EventProducer(bootstrap)
        self.sent: list[str] = []  #: by the delivery that has to come of each
        self.acknowledged: set[str] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._producer.flush(PATIENCE_S)
        self._producer.close()

    def _run(self) -> None:
        while not self._over.wait(1 / PER_S):
            account = ACCOUNTS[len(self.sent) % len(ACCOUNTS)]
            data = example_payload("click").data
            event = Event(new_event_id(), account, "click", time.time_ns() // 1_000_000, data)
            delivery = delivery_id(event.id, self._webhooks[account])

            def reported(error: Exception | None, delivery: str = delivery) -> None:
                if error is None:
                    self.acknowledged.add(delivery)

            self._producer.send(event, reported)
            self.sent.append(delivery)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # Not pytest's own directory: an unprivileged Postgres has to get there.
    with tempfile.TemporaryDirectory(prefix="go2hooks-brokers-", ignore_cleanup_errors=True) as directory:
        running = Cluster(Path(directory) / "data")
        try:
            running.wait_ready()
            yield running
        finally:
            status = running.up.end()
        assert status == 0, running.up.log.read_text()


def routed(endpoints: dict[str, Any]) -> float:
    """How many webhooks the router knows."""
    with urlopen(endpoints["metrics"]["router"][0], timeout=10) as answer:
        found = re.search(r'^go2hooks_webhooks\{state="routed"\} (\S+)$', answer.read().decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0


@pytest.fixture
def webhooks(cluster: Cluster, receiver: Recorder) -> Iterator[tuple[Endpoint, dict[str, str]]]:
    """Where a webhook of every account leads, and their ids."""
    endpoint = receiver.endpoint()
    body = {"name": "A test's", "url": endpoint.url, "events": ["click"]}
    known = routed(cluster.endpoints)
    with psycopg.connect(cluster.endpoints["postgres"]) as connection:
        keys = {account: create_key(connection, account).key for account in ACCOUNTS}
    ids = {account: call_api(cluster.endpoints, "/webhooks", body, key)["data"]["id"] for account, key in keys.items()}
    eventually(lambda: routed(cluster.endpoints) == known + len(ids))
    return endpoint, ids


def test_every_topic_is_replicated_and_the_doctor_says_so(cluster: Cluster):
    assert {count for counts in cluster.replicas().values() for count in counts} == {3}
    assert "✓  replication      every topic has 3 replicas or more, all in sync" in cluster.run("doctor")
    for topic in ("go2.deliveries", "__consumer_offsets"):
        assert cluster.config(topic, "min.insync.replicas") == "2"
        assert cluster.config(topic, "unclean.leader.election.enable") == "false"


def test_topics_that_are_added_later_are_replicated_too(cluster: Cluster):
    assert "Created: go2.deliveries.retry.7s" in cluster.run("topics", GO2HOOKS_RETRY_DELAYS="5s,7s")
    eventually(lambda: cluster.replicas().get("go2.deliveries.retry.7s") == [3, 3, 3])


def longest_gap_s(cluster: Cluster, node: int, stream: Stream, endpoint: Endpoint) -> float:
    """Kill a broker, see the stream go on without it, let it come back: how long nothing arrived, at the longest."""
    killed_at, sent_before = time.time(), len(stream.sent)
    with cluster.without(node):
        # Three seconds' worth of what is sent from its death on.
        endpoint.wait_until(lambda: len(endpoint.seen.intersection(stream.sent[sent_before:])) >= 3 * PER_S, PATIENCE_S)
        eventually(lambda: cluster.in_sync_everywhere() == {*BROKERS} - {node}, within_s=PATIENCE_S)
        assert cluster.remedies() == ["Bring back the brokers that are away, and let them catch up."]
    eventually(lambda: cluster.in_sync_everywhere() == {*BROKERS}, within_s=PATIENCE_S, every_s=0.1)
    arrivals = [killed_at, *(request.arrived for request in endpoint.requests if request.arrived > killed_at)]
    gap_s = max(later - earlier for earlier, later in pairwise(arrivals))
    print(f"broker {node} was away and came back within {time.time() - killed_at:.1f} s; longest gap {gap_s:.1f} s")
    return gap_s


def test_any_of_three_brokers_may_die(cluster: Cluster, webhooks: tuple[Endpoint, dict[str, str]], record_property):
    endpoint, ids = webhooks
    leader = cluster.controller()
    with Stream(cluster.endpoints["kafka"], ids) as stream:
        endpoint.wait_deliveries(PER_S, within_s=PATIENCE_S)
        for node in (leader, *(other for other in BROKERS if other != leader)):
            gap_s = longest_gap_s(cluster, node, stream, endpoint)
            record_property(f"longest_gap_s.{node}", round(gap_s, 1))
            assert gap_s <= LONGEST_GAP_S
    assert cluster.remedies() == [""]
    assert stream.acknowledged == set(stream.sent)
    endpoint.wait_deliveries(len(stream.sent), within_s=PATIENCE_S)
    assert endpoint.seen == stream.acknowledged
    print(f"{len(stream.sent)} events; {endpoint.duplicates()} deliveries came twice")


def test_all_three_that_were_killed_are_found_again(cluster: Cluster):
    pids, cluster_id, replicas = cluster.endpoints["pids"], cluster.id, cluster.replicas()
    cluster.up.end(signal.SIGKILL)
    cluster.up = UpCommand(cluster.up.dir, **ENV)
    cluster.wait_ready(not_by=pids)
    assert len(cluster.endpoints["pids"]["kafka"]) == 3
    assert (cluster.id, cluster.replicas()) == (cluster_id, replicas)
