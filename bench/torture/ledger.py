"""The evidence: what producers got acknowledged, what receivers saw and gave, what Postgres and Kafka hold, what went wrong.

Read without the code under test: own SQL, own Kafka consumer, Avro by fastavro from the schema's file. A million and a
half deliveries take two gigabytes: of a request's body only its token is kept, and strings that recur are kept once.
"""

import base64
import hashlib
import hmac
import io
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from sys import intern
from typing import Any, Final, NamedTuple

import fastavro
import orjson
import psycopg
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

_SCHEMA: Final = Path(__file__).parents[2] / "schemas" / "delivery.avsc"
_HEADER_BYTES: Final = 10
_KAFKA_S: Final = 60.0  # it answers, however busy the machine
_NOT_LED: Final = KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE
_GROUPS: Final = {
    "go2.deliveries": "go2hooks.dispatcher",
    "go2.deliveries.overflow": "go2hooks.dispatcher.overflow",
    "go2.deliveries.retry.": "go2hooks.dispatcher.retry",
}
_ROWS: Final = """SELECT webhook_id, delivery_id, attempt, event_id, state, status_code, error_code,
    extract(epoch FROM attempted_at)::float8, coalesce(duration_ms, 0)::float8,
    extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 FROM attempts WHERE event !~ '^webhook\\.'"""
_STILL_DISABLED: Final = "SELECT id, extract(epoch FROM disabled_at)::float8 FROM webhooks WHERE NOT is_active"
_TOLERANCE_S: Final = 300.0  # Standard Webhooks libraries'
_TOKEN_FIELDS: Final = ("qrId", "linkId", "id")


@dataclass(frozen=True)
class Target:
    """A webhook as the API created it, and its receiver."""

    id: str
    number: int
    account: str
    events: tuple[str, ...]
    temper: str
    secret: str

    def wants(self, event: str) -> bool:
        return "*" in self.events or event in self.events


class Sent(NamedTuple):
    """An event as its producer knows it."""

    token: str
    event_id: str
    account: str
    type: str
    produced: float
    acknowledged: float | None


@dataclass(slots=True)
class Seen:
    """A request as its receiver saw it."""

    at: float
    hook: int
    delivery: str
    attempt: int
    event: str
    process: str  #: who made it, as name/pid
    token: str
    genuine: bool  #: both its signatures, its webhook's id and its event's name are right
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
    attempted: float
    duration_ms: float
    recorded: float | None  #: when Postgres committed it


class Lying(NamedTuple):
    """A message as it lies in Kafka."""

    topic: str
    partition: int
    offset: int
    written: float
    webhook_id: str
    event_id: str
    attempt: int
    due: float
    waiting: bool
    suspect: bool


class Fault(NamedTuple):
    """Something that was made to go wrong. `pid` of the process that it hit, 0 for servers and networks."""

    kind: str
    target: str
    began: float
    ended: float
    pid: int = 0
    reached: bool = True  #: False: a point in the code to which no process came in time
    part: bool = False  #: of another fault, such as a storm
    back: float | None = None  #: when a server that was started again answered; `ended` is when it was started


class Process(NamedTuple):
    """A process of ours from start to end; `status` negative: the signal that ended it."""

    name: str
    pid: int
    started: float
    ended: float | None = None
    status: int | None = None


class HeldUp(NamedTuple):
    """When the machine did not let a process of ours run, or it was stopped."""

    process: str  #: as name/pid
    began: float
    ended: float


class Spell(NamedTuple):
    """How long a webhook was disabled."""

    webhook_id: str
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
    processes: list[Process] = field(default_factory=list)
    disabled: list[Spell] = field(default_factory=list)
    absences: list[tuple[int, float]] = field(default_factory=list)  # receiver's number, when it went away
    held_up: list[HeldUp] = field(default_factory=list)
    others: list[tuple[float, float]] = field(default_factory=list)  # time, cores of the machine that others used then
    in_log: dict[str, int] = field(default_factory=dict)  # event id → how often it lies in the event topics


def read(directory: Path, database_url: str, bootstrap: str, targets: list[Target]) -> Ledger:
    ledger = Ledger()
    for token, event_id, *rest in _lines(directory / "events.jsonl"):
        ledger.sent.append(Sent(intern(token), intern(event_id), *rest))
    _read_receivers(ledger, directory / "receivers.jsonl", {target.number: target for target in targets})
    ledger.faults = [Fault(**line) for line in _lines(directory / "faults.jsonl")]
    ledger.processes = _read_processes(directory / "processes.jsonl")
    ledger.held_up = [HeldUp(f"{name}/{pid}", *times) for name, pid, *times in _lines(directory / "held_up.jsonl")]
    ledger.others = [(at, cores) for at, cores in _lines(directory / "others.jsonl")]
    ledger.disabled = _read_disabled(directory / "disabled.jsonl")
    _read_rows(ledger, database_url)
    _read_kafka(ledger, bootstrap)
    return ledger


def is_genuine(target: Target, webhook_id: str, body: str, signature: str) -> bool:
    """Whether a request says the webhook that it went to, and was signed with its secret."""
    wanted = "sha256=" + hmac.new(target.secret.encode(), body.encode(), hashlib.sha256).hexdigest()
    return webhook_id == target.id and hmac.compare_digest(wanted, signature)


def is_standard(target: Target, delivery: str, at: float, body: str, headers: list[str]) -> bool:
    """Whether a Standard Webhooks library would take it: the id is the delivery's, the time is near, the signature right."""
    message_id, timestamp, signature = headers
    key = base64.b64decode(target.secret.removeprefix("whsec_"))
    signed = f"{message_id}.{timestamp}.{body}".encode()
    wanted = "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    is_near = abs(at - int(timestamp)) <= _TOLERANCE_S
    return message_id == delivery and is_near and hmac.compare_digest(wanted, signature)


def token_of(body: str) -> str:
    data = orjson.loads(body)["data"]
    return str(next((data[name] for name in _TOKEN_FIELDS if name in data), "?"))


def _lines(path: Path) -> Iterator[Any]:
    """Each line's JSON."""
    if path.exists():
        with path.open("rb") as file:
            yield from map(orjson.loads, file)


def _read_receivers(ledger: Ledger, path: Path, targets: dict[int, Target]) -> None:
    requests: dict[int, Seen] = {}
    for line in _lines(path):
        match line:
            case ["got", number, at, hook, delivery, attempt, webhook_id, event, body, signature, standard, process]:
                genuine = is_genuine(targets[hook], webhook_id, body, signature)
                genuine &= is_standard(targets[hook], delivery, at, body, standard)
                genuine &= orjson.loads(body)["event"] == event
                token = intern(token_of(body))
                requests[number] = Seen(
                    at, hook, intern(delivery), attempt, intern(event), intern(process), token, genuine
                )
            case ["gave", number, at, status]:
                requests[number].gave, requests[number].gave_at = status, at
            case ["away", at, hook]:
                ledger.absences.append((hook, at))
    ledger.seen = list(requests.values())


def _read_processes(path: Path) -> list[Process]:
    """Later lines of a process say how it ended."""
    processes = [Process(*line) for line in _lines(path)]
    return list({(process.name, process.pid, process.started): process for process in processes}.values())


def _read_disabled(path: Path) -> list[Spell]:
    began: dict[str, float] = {}
    spells = []
    for what, webhook_id, at in _lines(path):
        if what == "disabled":
            began[webhook_id] = at
        else:
            spells.append(Spell(webhook_id, began.pop(webhook_id), at))
    return spells + [Spell(webhook_id, at, float("inf")) for webhook_id, at in began.items()]


def _read_rows(ledger: Ledger, database_url: str) -> None:
    with psycopg.connect(database_url) as connection, connection.cursor("rows") as cursor:
        cursor.itersize = 20_000
        cursor.execute(_ROWS)
        for webhook_id, delivery, attempt, event_id, state, status, error, *times in cursor:
            names = intern(webhook_id), intern(delivery), attempt, intern(event_id), intern(state)
            ledger.rows.append(Row(*names, status, error and intern(error), *times))
        for webhook_id, at in connection.execute(_STILL_DISABLED):
            ledger.disabled.append(Spell(webhook_id, at, float("inf")))


def unfinished(bootstrap: str) -> dict[str, int]:
    """Messages beyond the committed offset, by topic: none once the stack has come to rest."""
    left: dict[str, int] = defaultdict(int)
    groups = _GROUPS | {"go2.events.": "go2hooks.router"}
    for prefix, group in groups.items():
        consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
        try:
            for partition in consumer.committed(_partitions(consumer, prefix), timeout=_KAFKA_S):
                low, high = _bounds(consumer, partition)
                if partition.topic != "go2.events.dead":
                    left[partition.topic] += high - max(low, partition.offset)
        finally:
            consumer.close()
    return {topic: count for topic, count in left.items() if count}


def _partitions(consumer: Consumer, prefix: str) -> list[TopicPartition]:
    topics = consumer.list_topics(timeout=_KAFKA_S).topics
    names = [name for name in topics if name == prefix or (prefix.endswith(".") and name.startswith(prefix))]
    return [TopicPartition(name, n) for name in names for n in topics[name].partitions]


def _bounds(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """Its first offset and the one after its last. A broker that was started again answers before it leads them all."""
    deadline = time.monotonic() + _KAFKA_S
    while True:
        try:
            low, high = consumer.get_watermark_offsets(partition, timeout=_KAFKA_S)
        except KafkaException as error:
            if error.args[0].code() not in _NOT_LED or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return low, high


def _read_kafka(ledger: Ledger, bootstrap: str) -> None:
    schema = fastavro.parse_schema(json.loads(_SCHEMA.read_text()))
    for prefix, group in _GROUPS.items():
        for message, committed in _read_all(bootstrap, prefix, group):
            delivery = _decode(message, schema)
            ledger.lying.append(
                Lying(
                    intern(message.topic()), message.partition(), message.offset(), message.timestamp()[1] / 1000,
                    intern(delivery["webhookId"]), intern(delivery["eventId"]), delivery["attempt"],
                    delivery["dueAt"] / 1000, message.offset() >= committed, delivery["suspect"],
                )
            )  # fmt: skip
    dead: dict[str, int] = defaultdict(int)
    for message, _ in _read_all(bootstrap, "go2.deliveries.dead", "torture"):
        dead[intern(_decode(message, schema)["id"])] += 1
    ledger.dead = dict(dead)
    present: dict[str, int] = defaultdict(int)
    for message, _ in _read_all(bootstrap, "go2.events.", "torture"):
        present[intern(_event_id(message.value()[_HEADER_BYTES:]))] += 1
    ledger.in_log = dict(present)


def _decode(message: Any, schema: Any) -> Any:
    return fastavro.schemaless_reader(io.BytesIO(message.value()[_HEADER_BYTES:]), schema, None)


def _event_id(record: bytes) -> str:
    """The first field of every event schema: a string, its length before it as a zigzag varint."""
    return str(fastavro.schemaless_reader(io.BytesIO(record), "string", None))


def _read_all(bootstrap: str, prefix: str, group: str) -> Iterator[tuple[Any, int]]:
    """Every message of the topics, with its partition's committed offset."""
    config = {"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False}
    consumer = Consumer(config | {"auto.offset.reset": "earliest", "enable.partition.eof": False})
    try:
        partitions = _partitions(consumer, prefix)
        committed = {(p.topic, p.partition): max(0, p.offset) for p in consumer.committed(partitions, timeout=_KAFKA_S)}
        bounds = {(p.topic, p.partition): _bounds(consumer, p) for p in partitions}
        missing = sum(high - low for low, high in bounds.values())
        consumer.assign([TopicPartition(p.topic, p.partition, bounds[p.topic, p.partition][0]) for p in partitions])
        while missing:
            batch = consumer.consume(min(missing, 5000), _KAFKA_S)
            if not batch:
                raise RuntimeError(f"{missing} messages of {prefix} cannot be read")
            for message in batch:
                if message.error() is None:
                    missing -= 1
                    yield message, committed[message.topic(), message.partition()]
    finally:
        consumer.close()
