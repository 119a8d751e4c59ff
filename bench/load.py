"""Produces clicks at full speed or at a given rate: a process of its own, its events encoded beforehand.

Reads one JSON object from stdin, says that it is ready, waits for a line, produces, says how it went.
"""

import json
import os
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from confluent_kafka import KafkaError, Producer

from go2hooks.codec import EventCodec
from go2hooks.core.domain.event import Event, EventType
from go2hooks.core.domain.samples import sample_data
from go2hooks.kafka.topics import TopicNames
from go2hooks.producer import DEFAULTS

NAMES = TopicNames("go2")

_ID_DIGITS = 32
_SLUG_DIGITS = 16
_VARIANTS = 16
_VARIED_ACCOUNTS = 2000  # beyond that, one click each: encoding takes its time
_SLICE = 100  # events of one part before the others get their turn
_KEEP_S = 300.0  # how long an event waits for a Kafka that is away
NOBODY = "acc_bench_nobody"  #: no webhook wants its events


@dataclass
class Part:
    """A stream of events to `accounts` in turn: `rate` a second from `start_s` on, `count` in all. Rate 0: at once."""

    accounts: list[str]
    count: int
    rate: float = 0.0
    start_s: float = 0.0
    topic: str = NAMES.of_event["click"]
    prepared: bool = False  #: events are made before the clock starts, and do not say when they were sent
    sent: int = 0
    slip_s: float = 0.0  #: furthest behind its schedule

    def due(self, elapsed_s: float) -> int:
        """How many should be sent by now and are not."""
        since = elapsed_s - self.start_s
        if since < 0 or self.sent >= self.count:
            return 0
        if not self.rate:
            return self.count - self.sent
        due = min(self.count, int(since * self.rate) + 1) - self.sent
        if due > 0:
            self.slip_s = max(self.slip_s, since - self.sent / self.rate)
        return due

    def next_at_s(self) -> float:
        """When its next event is due, in seconds from the start; infinite when there is none."""
        if self.sent >= self.count:
            return float("inf")
        return self.start_s + (self.sent / self.rate if self.rate else 0.0)


class Encoder:
    """An account's clicks as Avro, with room for the event's id and its send time: encoded once, filled in per event."""

    def __init__(self, accounts: list[str]) -> None:
        codec, source = EventCodec(), random.Random(0)  # a seed, so that every run sends the same
        self._variants = _VARIANTS if len(accounts) <= _VARIED_ACCOUNTS else 1
        self._pieces: dict[str, list[tuple[bytes, bytes, bytes]]] = {}
        for account in accounts:
            self._pieces[account] = [_pieces(codec, account, source) for _ in range(self._variants)]

    def clicks(self, accounts: list[str], first: int) -> Iterator[tuple[bytes, tuple[bytes, bytes, bytes], int]]:
        """Key, pieces and number of each click, for ever; accounts take turns."""
        keys = [account.encode() for account in accounts]
        number = first
        while True:
            for account, key in zip(accounts, keys, strict=True):
                yield key, self._pieces[account][number % self._variants], number
                number += 1


def _message(click: tuple[bytes, tuple[bytes, bytes, bytes], int]) -> tuple[bytes, bytes]:
    """Key and value; it was sent now."""
    key, (head, middle, tail), number = click
    return key, b"%b%032x%b%016d%b" % (head, number, middle, time.monotonic_ns() // 1000, tail)


def _pieces(codec: EventCodec, account: str, source: random.Random) -> tuple[bytes, bytes, bytes]:
    event_id, slug = "evt_" + "#" * _ID_DIGITS, "b" + "%" * _SLUG_DIGITS
    data = sample_data(EventType.CLICK, source) | {"slug": slug}
    encoded = codec.encode(Event(event_id, account, EventType.CLICK, time.time_ns() // 1_000_000, data))
    head, rest = encoded.split(b"#" * _ID_DIGITS)
    middle, tail = rest.split(b"%" * _SLUG_DIGITS)
    return head, middle, tail


class Load:
    def __init__(self, orders: dict[str, Any]) -> None:
        self._parts = [Part(**part) for part in orders["parts"]]
        encoder = Encoder(sorted({account for part in self._parts for account in part.accounts}))
        run = self._run = int.from_bytes(os.urandom(8)) << 64  # no event id is ever used twice
        starts = [sum(part.count for part in self._parts[:n]) for n in range(len(self._parts))]
        self._messages: list[Iterator[tuple[bytes, bytes]]] = []
        for part, start in zip(self._parts, starts, strict=True):
            messages = map(_message, encoder.clicks(part.accounts, run + start))
            self._messages.append(iter(list(islice(messages, part.count))) if part.prepared else messages)
        self._failed = 0
        self._producer = Producer(
            DEFAULTS
            | {
                "bootstrap.servers": orders["bootstrap"],
                "linger.ms": orders.get("linger_ms", 0),
                "message.timeout.ms": round(orders.get("keep_s", _KEEP_S) * 1000),
                "log_level": 2,  # what fails is counted; a Kafka that is away on purpose would fill the terminal
                "on_delivery": self._delivered,
                "delivery.report.only.error": True,
            }
        )
        self._connect()

    def _connect(self) -> None:
        """Have connection and producer id before the clock starts, by an event that no webhook wants."""
        _key, value = _message(next(Encoder([NOBODY]).clicks([NOBODY], int.from_bytes(os.urandom(16)))))
        self._producer.produce(NAMES.of_event["click"], value, NOBODY)
        if self._producer.flush(60):
            raise SystemExit("Kafka did not take the first event within 60 s")

    def run(self) -> dict[str, Any]:
        """Produce it all, wait until Kafka has it."""
        began, cpu = time.monotonic(), time.process_time()
        while (wait_s := self._turn(began)) is not None:
            self._producer.poll(0)
            if wait_s > 0:
                time.sleep(min(wait_s, 0.05))
        produced = time.monotonic()
        left = self._producer.flush(120)
        return {
            "first_number": self._run,  # of the first part's first event, whose id is made of it
            "began_us": int(began * 1e6),
            "produced_s": produced - began,
            "acknowledged_s": time.monotonic() - began,
            "events": sum(part.sent for part in self._parts),
            "failed": self._failed + left,
            "slip_ms": max(part.slip_s for part in self._parts) * 1000,
            "cpu_s": time.process_time() - cpu,
        }

    def _turn(self, began: float) -> float | None:
        """Send a slice of what is due. Seconds until more is; None when all is sent."""
        for part, messages in zip(self._parts, self._messages, strict=True):
            for _ in range(min(_SLICE, part.due(time.monotonic() - began))):
                self._send(part.topic, *next(messages))
                part.sent += 1
        at = min(part.next_at_s() for part in self._parts)
        return None if at == float("inf") else began + at - time.monotonic()

    def _send(self, topic: str, key: bytes, value: bytes) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key)
            except BufferError:
                self._producer.poll(0.01)
            else:
                return

    def _delivered(self, error: KafkaError | None, _message: object) -> None:
        self._failed += error is not None


def main() -> None:
    load = Load(json.loads(sys.stdin.readline()))
    print("ready", flush=True)
    if sys.stdin.readline():  # nothing when whoever started us has gone
        print(json.dumps(load.run()), flush=True)


if __name__ == "__main__":
    main()
