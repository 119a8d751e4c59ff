"""The internal producer: asks Kafka to keep a message, and says on the event loop when it has.

One thread serves delivery reports. There is no give-up: see `producer_config`.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from confluent_kafka import KafkaError, Message, Producer

from go2hooks.kafka.client import report

log = structlog.get_logger(__name__)

Headers = Sequence[tuple[str, bytes]]


class LoopProducer:
    """`produce` from the event loop; `on_kept` runs there when Kafka has acknowledged.

    A message that Kafka refuses for good (none of ours should be: sizes are checked before) sets `failure`; the process
    is expected to stop, since nothing that depends on the message may be committed.
    """

    def __init__(self, config: dict[str, Any], loop: asyncio.AbstractEventLoop) -> None:
        self._producer = Producer(config | {"error_cb": self._on_error})
        self._loop = loop
        self._stop = threading.Event()
        self._report_thread = threading.Thread(target=self._serve, name="produce-reports", daemon=True)
        self._kept: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self.failure: str | None = None
        self._report_thread.start()

    def produce(self, topic: str, key: str, value: bytes, on_kept: Callable[[], None], headers: Headers = ()) -> None:
        """Queue a message. Blocks only while librdkafka's own queue is full."""

        def acknowledge(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                self.failure = f"{topic}: {error.str()}"
                log.error("kafka refused a message for good", topic=topic, error=error.str())
                return
            with self._lock:
                self._kept.append(on_kept)
                first = len(self._kept) == 1
            if first:  # one wake-up for all that are reported together
                self._loop.call_soon_threadsafe(self._run_kept)

        while True:
            try:
                self._producer.produce(topic, value, key, on_delivery=acknowledge, headers=list(headers))
            except BufferError:
                self._producer.poll(0.05)
            else:
                return

    async def flush(self, timeout_s: float) -> int:
        """Wait until all is acknowledged. Returns how many messages are not."""
        remaining: int = await asyncio.to_thread(self._producer.flush, timeout_s)
        return remaining

    async def stop(self) -> None:
        self._stop.set()
        await asyncio.to_thread(self._report_thread.join)

    def _serve(self) -> None:
        while not self._stop.is_set():
            self._producer.poll(0.1)

    def _run_kept(self) -> None:
        with self._lock:
            kept, self._kept = self._kept, []
        for on_kept in kept:
            on_kept()

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self.failure = error.str()
        report(error, self._producer)
