"""The embedded Kafka and Postgres, alone."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from go2hooks.devstack.artifacts import aot_cache, kafka_dir
from go2hooks.devstack.broker import Broker
from go2hooks.devstack.quorum import open_quorum


def test_what_is_produced_to_the_embedded_broker_can_be_consumed(
    kafka_bootstrap: str, create_topic: Callable[..., str]
):
    topic = create_topic()
    producer = Producer({"bootstrap.servers": kafka_bootstrap})
    producer.produce(topic, b"hello")
    assert producer.flush(10) == 0
    consumer = Consumer({"bootstrap.servers": kafka_bootstrap, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    message = consumer.poll(15)
    consumer.close()
    assert message.value() == b"hello"


def test_each_test_gets_an_empty_migrated_database(database_url: str):
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM webhooks").fetchone() == (0,)


def test_another_database_of_the_same_template_does_not_see_its_rows(database_url: str):
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO accounts (id) VALUES ('acme')")
        assert connection.execute("SELECT count(*) FROM accounts").fetchone() == (1,)


@pytest.mark.parametrize("brokers", [1, 3])
def test_kafka_can_use_what_its_rehearsal_left(servers_dir: Path, brokers: int):
    """Java passes over what does not fit its options or its class path, unless it is told to insist."""
    quorum = open_quorum(servers_dir / f"rehearsed-{brokers}", brokers)
    java, *options, _main, _properties = (
        Broker(quorum.dir_of(quorum.nodes[0]), quorum=quorum, node=quorum.nodes[0])._prepare().argv
    )
    assert f"-XX:AOTCache={aot_cache()}" in options
    command = [java, *options, "-XX:AOTMode=on", "-version"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "[warning]" not in result.stdout


@pytest.mark.parametrize("kept", [True, False])
def test_a_broker_is_formatted_alike_by_kafkas_tool_and_from_what_it_once_made(
    servers_dir: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
):
    cache = servers_dir / f"cache-{kept}"
    shutil.copytree(kafka_dir(), cache / "go2hooks" / kafka_dir().name, copy_function=os.symlink)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    if not kept:
        (kafka_dir() / "bootstrap.checkpoint").unlink(missing_ok=True)
    with Broker(servers_dir / f"formatted-{kept}") as broker:
        metadata = AdminClient({"bootstrap.servers": broker.bootstrap}).list_topics(timeout=30)
    identity = json.loads((servers_dir / f"formatted-{kept}" / "quorum.json").read_bytes())
    assert metadata.cluster_id == identity["clusterId"]
    assert (kafka_dir() / "bootstrap.checkpoint").exists()
