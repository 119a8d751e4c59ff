"""The evidence: what producers got acknowledged, what receivers saw and gave, what Postgres and Kafka hold.

Read without the code under test: own SQL, own Kafka consumer, Avro by fastavro from the schema's file.
"""

import io
import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import fastavro
import psycopg
from confluent_kafka import Consumer, TopicPartition

_SCHEMA = Path(__file__).parents[2] / "schemas" / "delivery.avsc"
_HEADER_BYTES = 10
_GROUPS = {
    "go2.deliveries": "go2hooks.dispatcher",
    "go2.deliveries.overflow": "go2hooks.dispatcher.overflow",
    "go2.deliveries.retry.": "go2hooks.dispatcher.retry",
}
_ROWS = """SELECT webhook_id, delivery_id, attempt, event_id, state, status_code, error_code,
    extract(epoch FROM created_at)::float8, extract(epoch FROM attempted_at)::float8,
    extract(epoch FROM next_attempt_at)::float8, coalesce(duration_ms, 0)::float8 FROM attempts
    ORDER BY attempted_at, attempt"""


class Sent(NamedTuple):
    """An event as its producer knows it."""

    token: str
    event_id: str
    account: str
    type: str
    produced: float
    acknowledged: float | None


@dataclass
class Seen:
    """A request as its receiver saw it."""

    at: float
    hook: int
    delivery: str
    attempt: int
    webhook_id: str
    event: str
    body: str
    signature: str
    gave: int | str | None = None
    gave_at: float | None = None


class Row(NamedTuple):
    """A recorded attempt."""

    webhook_id: str
    delivery: str
    attempt: int
    event_id: str
    state: str
    status: int | None
    error: str | None
    created: float
    attempted: float
    next_at: float | None
    duration_ms: float


class Lying(NamedTuple):
    """A message as it lies in Kafka."""

    topic: str
    partition: int
    offset: int
    written: float
    webhook_id: str
    delivery: str
    event_id: str
    attempt: int
    due: float
    waiting: bool
    suspect: bool


class Fault(NamedTuple):
    kind: str
    target: str
    began: float
    ended: float


@dataclass
class Ledger:
    """All of it."""

    sent: list[Sent] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    lying: list[Lying] = field(default_factory=list)
    dead: dict[str, int] = field(default_factory=dict)  # delivery → messages in the dead letter topic
    faults: list[Fault] = field(default_factory=list)
    disabled: list[tuple[str, float]] = field(default_factory=list)  # webhook id, when it was seen disabled
    in_log: dict[str, int] = field(default_factory=dict)  # event id → how often it lies in the event topics


def read(directory: Path, database_url: str, bootstrap: str) -> Ledger:
    ledger = Ledger()
    ledger.sent = [Sent(*json.loads(line)) for line in _lines(directory / "events.jsonl")]
    ledger.seen = _read_receivers(directory / "receivers.jsonl")
    for line in _lines(directory / "faults.jsonl"):
        fault = json.loads(line)
        ledger.faults.append(Fault(fault["kind"], fault["target"], fault["t0"], fault["t1"]))
    ledger.disabled = [tuple(json.loads(line)) for line in _lines(directory / "disabled.jsonl")]
    with psycopg.connect(database_url) as connection:
        ledger.rows = [Row(*row) for row in connection.execute(_ROWS)]
    _read_kafka(ledger, bootstrap)
    return ledger


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _read_receivers(path: Path) -> list[Seen]:
    requests: dict[int, Seen] = {}
    for line in _lines(path):
        match json.loads(line):
            case ["got", number, *rest]:
                requests[number] = Seen(*rest)
            case ["gave", number, at, status]:
                requests[number].gave, requests[number].gave_at = status, at
    return list(requests.values())


def unfinished(bootstrap: str) -> dict[str, int]:
    """Messages beyond the committed offset, by topic: none once the stack has come to rest."""
    left: dict[str, int] = defaultdict(int)
    groups = _GROUPS | {"go2.events.": "go2hooks.router"}
    for prefix, group in groups.items():
        consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
        try:
            for partition in consumer.committed(_partitions(consumer, prefix), timeout=10):
                low, high = consumer.get_watermark_offsets(partition, timeout=10)
                if partition.topic != "go2.events.dead":
                    left[partition.topic] += high - max(low, partition.offset)
        finally:
            consumer.close()
    return {topic: count for topic, count in left.items() if count}


def _partitions(consumer: Consumer, prefix: str) -> list[TopicPartition]:
    topics = consumer.list_topics(timeout=10).topics
    names = [name for name in topics if name == prefix or (prefix.endswith(".") and name.startswith(prefix))]
    return [TopicPartition(name, n) for name in names for n in topics[name].partitions]


def _read_kafka(ledger: Ledger, bootstrap: str) -> None:
    schema = fastavro.parse_schema(json.loads(_SCHEMA.read_text()))
    for prefix, group in _GROUPS.items():
        for message, committed in _read_all(bootstrap, prefix, group):
            delivery: Any = fastavro.schemaless_reader(io.BytesIO(message.value()[_HEADER_BYTES:]), schema, None)
            ledger.lying.append(
                Lying(
                    message.topic(), message.partition(), message.offset(), message.timestamp()[1] / 1000,
                    delivery["webhookId"], delivery["id"], delivery["eventId"], delivery["attempt"],
                    delivery["dueAt"] / 1000, message.offset() >= committed, delivery["suspect"],
                )
            )  # fmt: skip
    dead: dict[str, int] = defaultdict(int)
    for message, _ in _read_all(bootstrap, "go2.deliveries.dead", "torture"):
        delivery = fastavro.schemaless_reader(io.BytesIO(message.value()[_HEADER_BYTES:]), schema, None)
        dead[delivery["id"]] += 1
    ledger.dead = dict(dead)
    present: dict[str, int] = defaultdict(int)
    for message, _ in _read_all(bootstrap, "go2.events.", "torture"):
        present[_event_id(message.value()[_HEADER_BYTES:])] += 1
    ledger.in_log = dict(present)


def _event_id(record: bytes) -> str:
    """The first field of every event schema: a string, its length before it as a zigzag varint."""
    return str(fastavro.schemaless_reader(io.BytesIO(record), "string", None))


def _read_all(bootstrap: str, prefix: str, group: str) -> list[tuple[Any, int]]:
    """Every message of the topics, with its partition's committed offset."""
    config = {"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False}
    consumer = Consumer(config | {"auto.offset.reset": "earliest", "enable.partition.eof": False})
    try:
        partitions = _partitions(consumer, prefix)
        committed = {(p.topic, p.partition): max(0, p.offset) for p in consumer.committed(partitions, timeout=10)}
        bounds = {(p.topic, p.partition): consumer.get_watermark_offsets(p, timeout=10) for p in partitions}
        missing = sum(high - low for low, high in bounds.values())
        consumer.assign([TopicPartition(p.topic, p.partition, bounds[p.topic, p.partition][0]) for p in partitions])
        found: list[tuple[Any, int]] = []
        while len(found) < missing:
            batch = consumer.consume(5000, 5.0)
            if not batch:
                raise RuntimeError(f"{missing - len(found)} messages of {prefix} cannot be read")
            found += [(m, committed[m.topic(), m.partition()]) for m in batch if m.error() is None]
        return found
    finally:
        consumer.close()
