"""For event producers: writes events to Kafka, durably and in order per account.

    with EventProducer.from_environment() as producer:
        producer.send(Event(new_event_id(), "acc_1", EventType.CLICK, time.time_ns() // 1_000_000, data))

`from_environment` reads where Kafka is, and how it is reached, from the same `GO2HOOKS_KAFKA_*` variables as the
services.

At its end the block waits until Kafka has every event, and raises UnavailableError when some could not be delivered.
"""

import ctypes
import logging
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Final, Self
from weakref import WeakSet

from confluent_kafka import KafkaError, Message, Producer

from go2hooks.codec import EventCodec
from go2hooks.core.domain.event import Event, EventType
from go2hooks.core.domain.validation import validate
from go2hooks.core.errors import EventError, InvalidEventError, UnavailableError
from go2hooks.kafka.client import connection_config, refusal
from go2hooks.kafka.diagnosis import why_away
from go2hooks.kafka.producing import RefusedError, enqueue
from go2hooks.kafka.topics import TopicNames
from go2hooks.settings import KafkaSettings, load_kafka_settings

__all__ = [
    "Event",
    "EventError",
    "EventProducer",
    "EventType",
    "InvalidEventError",
    "UnavailableError",
    "new_event_id",
    "validate",
]

OnDelivery = Callable[[Exception | None], None]

#: librdkafka's settings, without the brokers' addresses.
DEFAULTS: Final[dict[str, Any]] = {
    "enable.idempotence": True,  # a retry inside librdkafka neither doubles nor reorders
    "acks": "all",
    "linger.ms": 0,  # librdkafka still batches what gathers while a request is under way
    # A batch is fetched and read whole: a burst in batches of a megabyte, librdkafka's default, would delay other
    # events.
    "batch.size": 65_536,
    "message.timeout.ms": 120_000,
    "queue.buffering.max.messages": 100_000,
    "queue.buffering.max.kbytes": 65_536,
    "partitioner": "murmur2_random",  # as the Java producer places keys
    "reconnect.backoff.max.ms": 1000,
}
_LOGGER: Final = {"logger": logging.getLogger("librdkafka")}  # or its lines go to the application's stderr
_LOGGER["logger"].addHandler(logging.NullHandler())  # the application decides
_REPORT_S: Final = 1.0  # for the reports of events that were just purged
_TIME_BYTES: Final = 6
_RANDOM_BYTES: Final = 10


def new_event_id() -> str:
    """`evt_` and 32 hex digits: 48 bits of milliseconds, so that ids sort by time, and 80 random bits."""
    now_ms = time.time_ns() // 1_000_000
    return f"evt_{now_ms.to_bytes(_TIME_BYTES, 'big').hex()}{secrets.token_hex(_RANDOM_BYTES)}"


class _Client:
    """What of a producer belongs to one process: librdkafka's client, and the counts of its reports. A forked process
    makes another.

    The client is made when it is first needed. Not before: a process that forks while a thread of it looks up an
    address leaves glibc's resolver locked in the child for ever. A client that has not been used looks nothing up.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._begin()
        _CLIENTS.add(self)

    def _begin(self) -> None:
        self._lock = Lock()
        self._producer: Producer | None = None
        self.delivered = 0
        self.failed = 0

    def begin_anew(self) -> None:
        """In a child: librdkafka's threads stayed in the parent, which sends what waits there, and a thread there may
        hold the lock.

        The inherited client may never be destroyed: that would wait for its threads for ever.
        """
        if self._producer is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._producer))
        self._begin()

    @property
    def producer(self) -> Producer:
        if self._producer is None:
            with self._lock:
                if self._producer is None:
                    self._producer = Producer(self._config)
        return self._producer

    def flush(self, timeout_s: float) -> int:
        return 0 if self._producer is None else int(self._producer.flush(timeout_s))

    def count(self, error: KafkaError | None) -> None:
        with self._lock:
            if error is None:
                self.delivered += 1
            else:
                self.failed += 1


_CLIENTS: Final[WeakSet[_Client]] = WeakSet()


def _begin_anew() -> None:
    for client in list(_CLIENTS):
        client.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


class EventProducer:
    """Sends events with idempotence on. One per process is enough. Threads may share it; a forked process (gunicorn
    --preload, Celery) may inherit it, and starts with an empty queue.

    Events that Kafka has not yet acknowledged wait in a bounded queue in memory, for up to `message.timeout.ms` (2
    min).
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        config: dict[str, Any] | None = None,
        send_timeout_s: float = 30.0,
        close_timeout_s: float = 30.0,
        schema_dir: Path | None = None,
        prefix: str = "go2",
    ) -> None:
        """It connects in the background when it is first used: an absent broker shows in `send` and `close`, not here.

        `config` holds librdkafka settings that override ours. `send_timeout_s` bounds how long `send` waits for room in
        the queue. The topics' names begin with `prefix`. Raises ValueError for a setting that librdkafka does not know.
        """
        self._config = DEFAULTS | _LOGGER | (config or {}) | {"bootstrap.servers": bootstrap_servers}
        _try_out(self._config)
        self._client = _Client(self._config)
        self._topics = TopicNames(prefix)
        self._codec = EventCodec(schema_dir)
        self._send_timeout_s = send_timeout_s
        self._close_timeout_s = close_timeout_s
        self._raised: list[Exception] | None = None  # while closing: the first that a callback raised

    @classmethod
    def from_environment(
        cls, settings: KafkaSettings | None = None, *, config: dict[str, Any] | None = None, **options: Any
    ) -> Self:
        """A producer with the `GO2HOOKS_KAFKA_*` variables (or `settings`); `config` and `options` are those of the
        constructor.

        Raises SettingsError, with one line per wrong variable.
        """
        known = settings or load_kafka_settings()
        reached = connection_config(known, "producer") | (config or {})
        return cls(known.kafka_bootstrap_servers, config=reached, prefix=known.kafka_prefix, **options)

    @property
    def delivered(self) -> int:
        """How many events Kafka has acknowledged, of those whose reports were served."""
        return self._client.delivered

    @property
    def failed(self) -> int:
        """How many events were given up, of those whose reports were served."""
        return self._client.failed

    def send(self, event: Event, on_delivery: OnDelivery | None = None) -> None:
        """Queue one event, and serve the reports of earlier ones. Blocks only while the queue is full.

        `on_delivery` gets None once Kafka has the event, or why it was given up: InvalidEventError when a broker found
        it, or the batch that it was in, too large; UnavailableError otherwise. It is called within a later `send`,
        `flush` or `close`, in that caller's thread, which gets the exceptions that it raises. Raises InvalidEventError
        at once when the event breaks the contract or its schema or is too large, UnavailableError when the queue stays
        full for `send_timeout_s`.
        """
        validate(event)
        value = self._codec.encode(event)
        topic, key = self._topics.of_event[event.type], event.account_id.encode()
        client = self._client
        until = time.monotonic() + self._send_timeout_s

        def acknowledge(error: KafkaError | None, _message: Message) -> None:
            client.count(error)
            if on_delivery is not None:
                self._tell(on_delivery, None if error is None else _refusal(error, len(value)))

        try:
            queued = enqueue(client.producer, topic, key, value, acknowledge, None, lambda: time.monotonic() >= until)
        except RefusedError as error:
            raise _refusal(error.reason, len(value)) from error
        if not queued:
            raise UnavailableError(
                f"the producer's queue stayed full for {self._send_timeout_s:g} s. {why_away(self._config)}"
            )
        client.producer.poll(0)

    def flush(self, timeout_s: float) -> int:
        """Wait at most `timeout_s` for every report. Returns how many events are still waiting."""
        return self._client.flush(timeout_s)

    def close(self) -> None:
        """Wait at most `close_timeout_s`, then give up what is left. Closing twice is fine.

        Raises UnavailableError when events were not delivered, now or earlier: its message says how many. Each of them
        has had its `on_delivery` called with an error. What an `on_delivery` raises keeps no other from being called:
        the first such exception comes out at the end, or is the cause of the UnavailableError.
        """
        self._raised = raised = list[Exception]()
        try:
            waiting = self.flush(self._close_timeout_s)
            if waiting:
                self._client.producer.purge()
                waiting = self.flush(_REPORT_S)
        finally:
            self._raised = None
        first = raised[0] if raised else None
        lost = self.failed + waiting
        if lost:
            why = f". {why_away(self._config)}" if not self.delivered else ""
            raise UnavailableError(f"{lost} of {lost + self.delivered} events did not reach Kafka{why}") from first
        if first is not None:
            raise first

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close()
        except UnavailableError as lost:
            if error is None:
                raise
            error.add_note(str(lost))  # the error that ended the block goes first

    def _tell(self, on_delivery: OnDelivery, outcome: Exception | None) -> None:
        try:
            on_delivery(outcome)
        except Exception as own:
            raised = self._raised
            if raised is None:
                raise
            if not raised:  # raised from here, it would end the flush, and with it the others' reports
                raised.append(own)


def _try_out(config: dict[str, Any]) -> None:
    nowhere = {
        name: value for name, value in config.items() if name not in ("bootstrap.servers", "metadata.broker.list")
    }
    error = refusal(nowhere)
    if error is not None:
        raise ValueError(f"librdkafka refuses its configuration: {error}") from error


def _refusal(error: KafkaError, size: int) -> InvalidEventError | UnavailableError:
    if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
        return InvalidEventError(f"the event is too large for Kafka: {size} bytes")
    return UnavailableError(f"Kafka did not take the event: {error.str()}")
