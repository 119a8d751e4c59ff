"""The demo's producer: generated events of every type, sent by `go2hooks.producer` at a steady rate."""

import random
import threading
import time

from go2hooks.core.domain.event import Event
from go2hooks.core.domain.samples import sample_data
from go2hooks.core.errors import Go2HooksError
from go2hooks.demo.ledger import Ledger
from go2hooks.demo.plan import event_types
from go2hooks.producer import EventProducer, new_event_id


class DemoSender:
    """Sends `count` events in a thread, `rate` per second; adds each to the ledger before it is sent."""

    def __init__(self, kafka: str, account_id: str, ledger: Ledger, *, count: int, rate: float) -> None:
        self._kafka = kafka
        self._account_id = account_id
        self._ledger = ledger
        self._count = count
        self._rate = rate
        self._random = random.Random()  # noqa: S311  # sample data
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="producer", daemon=True)
        self._began = time.monotonic()
        self._ended: float | None = None

    def start(self) -> None:
        self._began = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Stop sending; does not block."""
        self._stop.set()

    @property
    def over(self) -> bool:
        """Whether all events are in Kafka, or the ledger has the error."""
        return self._ended is not None

    @property
    def took_s(self) -> float:
        return (self._ended or time.monotonic()) - self._began

    def _run(self) -> None:
        try:
            with EventProducer(self._kafka) as producer:
                self._send_all(producer)
        except Go2HooksError as error:
            self._ledger.complain(str(error))
        self._ended = time.monotonic()

    def _send_all(self, producer: EventProducer) -> None:
        for number, kind in enumerate(event_types(self._count)):
            if self._stop.wait(max(0.0, self._began + number / self._rate - time.monotonic())):
                self._ledger.complain(f"only {number:,} of {self._count:,} events were sent in time")
                return
            now_ms = time.time_ns() // 1_000_000
            event = Event(new_event_id(), self._account_id, kind, now_ms, sample_data(kind, self._random))
            self._ledger.expect(event, number, self._count)
            producer.send(event)  # closing raises the error of an event that Kafka did not take
