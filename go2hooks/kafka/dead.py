"""The dead-letter topics: which messages lie there, why, and how to send them back.

A message that was sent back stays where it is. A marker, written to the same topic, says when that was. So this needs
no other store, and a message is not sent back twice by mistake.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from confluent_kafka import Message

from go2hooks.codec import EventCodec, decode_delivery, encode_delivery
from go2hooks.core.domain.delivery import Delivery, Position, replayed
from go2hooks.core.domain.event import Event
from go2hooks.core.encoding.canonical import dumps
from go2hooks.core.errors import EventError
from go2hooks.kafka.partitions import position_of
from go2hooks.kafka.reading import LogReader, OffsetRange
from go2hooks.kafka.sending import GIVE_UP_S, WaitingProducer
from go2hooks.kafka.topics import TopicNames
from go2hooks.settings import Settings

_DELIVERIES: Final = ".deliveries.dead"  # the end of the topic's name, for every prefix
_MARKER: Final = "go2hooks-sent-back"
_LEFT_OUT: Final = "go2hooks-left-out"
_SHOWN_BYTES: Final = 400  # of what cannot be decoded


@dataclass(frozen=True, slots=True)
class DeadMessage:
    """A message in a dead-letter topic."""

    position: Position
    time_ms: int  #: when it was written there
    reason: str
    detail: str
    origin: Position | None  #: where it lay before; None for a delivery whose schedule has ended
    key: bytes | None
    value: bytes
    left_out: int  #: bytes of a key and value too large to be kept; they lie only at `origin`. 0 for most
    sent_back_ms: int | None  #: when it was last sent back

    def delivery(self) -> Delivery | None:
        """The delivery that it holds; None when it holds none."""
        if not self.position.topic.endswith(_DELIVERIES):
            return None
        try:
            return decode_delivery(self.value)
        except EventError:
            return None

    def event(self, codec: EventCodec) -> Event | None:
        """The event that it holds; None when it holds none, or still cannot be decoded."""
        if self.position.topic.endswith(_DELIVERIES):
            return None
        try:
            return codec.decode(self.value)
        except EventError:
            return None

    @property
    def name(self) -> str:
        """Its position in short: `deliveries/0/17`."""
        kind = self.position.topic.split(".")[-2]
        return f"{kind}/{self.position.partition}/{self.position.offset}"


def dead_topic(kind: str, prefix: str) -> str:
    """The topic of the dead `events` or `deliveries` of a deployment."""
    names = TopicNames(prefix)
    return names.deliveries_dead if kind == "deliveries" else names.events_dead


def read_dead(reader: LogReader, topic: str, since_ms: int = 0, newest: int | None = None) -> Iterator[DeadMessage]:
    """The dead messages of a topic, oldest first. Reads it twice: only at its end is it known which ones were sent
    back.

    `newest` limits this to so many messages at the end of each partition.
    """
    keys = reader.partitions([topic])
    starts = reader.offsets_at(keys, since_ms) if since_ms else reader.starts(keys)
    spans = [
        OffsetRange(key, starts[key] if newest is None else max(starts[key], end - newest), end)
        for key, end in reader.ends(keys).items()
    ]
    sent_back: dict[tuple[int, int], int] = {}
    for message in reader.read(spans):
        marked = _headers(message).get(_MARKER)
        if marked is not None:
            partition, _, offset = marked.partition("/")
            sent_back[int(partition), int(offset)] = message.timestamp()[1]
    for message in reader.read(spans):
        headers = _headers(message)
        if _MARKER not in headers:
            yield _letter(message, headers, sent_back)


def _letter(message: Message, headers: Mapping[str, str], sent_back: Mapping[tuple[int, int], int]) -> DeadMessage:
    position = position_of(message)
    key, value = message.key(), message.value()
    return DeadMessage(
        position,
        message.timestamp()[1],
        headers.get("go2hooks-reason", "unknown"),
        headers.get("go2hooks-detail", ""),
        _origin(headers),
        key.encode() if isinstance(key, str) else key,
        value.encode() if isinstance(value, str) else value or b"",
        int(left_out) if (left_out := headers.get(_LEFT_OUT, "")).isdecimal() else 0,
        sent_back.get((position.partition, position.offset)),
    )


def _headers(message: Message) -> dict[str, str]:
    pairs: list[tuple[str, bytes | None]] = message.headers() or []  # type: ignore[assignment]  # as they arrive
    return {name: (value or b"").decode("utf-8", "replace") for name, value in pairs}


def _origin(headers: Mapping[str, str]) -> Position | None:
    """From the headers of the router, or else from those of the dispatcher."""
    parts = [headers.get(f"go2hooks-{name}", "") for name in ("topic", "partition", "offset")]
    if not all(parts):
        parts = headers.get("go2hooks-position", "").rsplit("/", 2)
    try:
        topic, partition, offset = parts
        return Position(topic, int(partition), int(offset))
    except ValueError:
        return None


def describe(letter: DeadMessage, codec: EventCodec) -> Iterator[tuple[str, str]]:
    """Everything about it, by name; decoded where that is possible."""
    yield "position", letter.name
    yield "buried", told_time(letter.time_ms)
    yield "reason", f"{letter.reason}: {letter.detail}"
    yield "came from", "/".join(map(str, letter.origin)) if letter.origin else "the end of its schedule"
    yield "sent back", told_time(letter.sent_back_ms) or "never"
    yield "key", (letter.key or b"").decode("utf-8", "replace")
    delivery, event = letter.delivery(), letter.event(codec)
    if delivery is not None:
        for name in ("id", "webhook_id", "account_id", "event_id", "event", "attempt", "kind"):
            yield name.replace("_", " "), str(getattr(delivery, name))
        yield "payload", delivery.body.decode("utf-8", "replace")
    elif event is not None:
        yield "event", f"{event.type} {event.id} of {event.account_id}"
        yield "data", dumps(event.data).decode()
    elif letter.left_out:
        yield "too large", f"its {letter.left_out} bytes are only where it came from"
    else:
        more = " …" if len(letter.value) > _SHOWN_BYTES else ""
        yield f"{len(letter.value)} bytes", letter.value[:_SHOWN_BYTES].hex(" ") + more


def told_time(ms: int | None) -> str:
    """`2026-01-31 12:00:00`, UTC; empty for none."""
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S}" if ms is not None else ""


class WayBack:
    """Sends dead messages back to where they came from. Blocks; raises UnavailableError when Kafka does not take one.

    An event goes to its topic as it came. A delivery goes to `go2.deliveries` and through the whole schedule once more.
    Its attempts are numbered on from `last_attempt`, so that they collide with none that is recorded. Its id stays, so
    that the receiver recognises it.
    """

    def __init__(
        self, settings: Settings, last_attempt: Callable[[Delivery], int], give_up_s: float = GIVE_UP_S
    ) -> None:
        self._sender = WaitingProducer(settings, give_up_s)
        self._names = TopicNames(settings.kafka_prefix)
        self._last_attempt = last_attempt

    def send(self, letter: DeadMessage) -> Position | None:
        """Send it back, then mark it. None when that is impossible: its origin is unknown, or it was too large to be
        kept.
        """
        delivery = letter.delivery()
        if delivery is not None:
            following = max(delivery.attempt, self._last_attempt(delivery)) + 1
            again = replayed(delivery, following)
            position = self._sender.send(self._names.deliveries, letter.key, encode_delivery(again))
        elif letter.origin is not None and self._is_ours(letter.origin.topic) and not letter.left_out:
            position = self._sender.send(letter.origin.topic, letter.key, letter.value)
        else:
            return None
        where = f"{letter.position.partition}/{letter.position.offset}"
        self._sender.send(letter.position.topic, letter.key, b"", [(_MARKER, where.encode())])
        return position

    def _is_ours(self, topic: str) -> bool:
        """Whoever may write to Kafka can forge headers. So a message is sent only to a topic that services read."""
        names = self._names
        is_way_in = f"{topic}.".startswith(f"{names.deliveries}.") and topic != names.deliveries_dead
        return topic in names.events or is_way_in
