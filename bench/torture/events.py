"""The producer: a steady stream of events, each with a token in its payload; only acknowledged ones count."""

import json
import random
import threading
import time
from typing import Any, TextIO

from bench.torture.plan import Options, choose_event
from go2hooks.core.domain.event import Event
from go2hooks.core.domain.samples import sample_data
from go2hooks.producer import EventProducer, new_event_id

_REPORTED_S = 300.0  # librdkafka gives an event up after two minutes
TOKEN_FIELDS = ("qrId", "linkId", "id")  # of a payload's data: the first that is there carries the token


def token_of(data: dict[str, Any]) -> str:
    return next(data[name] for name in TOKEN_FIELDS if name in data)


class Stream(threading.Thread):
    """Produces until `seconds` are over or `stop`; notes [token, event id, account, type, produced, acknowledged or null]."""

    def __init__(self, bootstrap: str, options: Options, accounts: list[str], log: TextIO) -> None:
        super().__init__(name="events", daemon=True)
        self._options = options
        self._accounts = accounts
        self._log = log
        self._producer = EventProducer(bootstrap, close_timeout_s=60)
        self._stop_now = threading.Event()
        self.produced = 0
        self.error: BaseException | None = None

    def stop(self) -> None:
        self._stop_now.set()

    def run(self) -> None:
        try:
            self._produce()
        except BaseException as error:
            self.error = error
            raise

    def _produce(self) -> None:
        rng = random.Random(f"events {self._options.seed}")
        began = time.monotonic()
        while (elapsed := time.monotonic() - began) < self._options.seconds and not self._stop_now.is_set():
            while self.produced < min(elapsed * self._options.rate, self._options.events):
                self._send(rng)
            self._producer.flush(0.0)
            time.sleep(0.005)
        if waiting := self._producer.flush(_REPORTED_S):
            raise TimeoutError(f"{waiting} events are neither acknowledged nor given up")
        self._log.flush()

    def _send(self, rng: random.Random) -> None:
        self.produced += 1
        token, kind = f"tok{self._options.seed}x{self.produced}", choose_event(rng)
        data = sample_data(kind, rng)
        for name in TOKEN_FIELDS:
            if name in data:
                data[name] = token
        event = Event(new_event_id(), rng.choice(self._accounts), kind, time.time_ns() // 1_000_000, data)
        produced = time.time()

        def report(error: Exception | None) -> None:
            acknowledged = time.time() if error is None else None
            line = [token, event.id, event.account_id, kind, produced, acknowledged]
            self._log.write(json.dumps(line) + "\n")

        self._producer.send(event, report)
