"""The internal producer: asks Kafka to keep a message, and says on the event loop when it has.

One thread serves delivery reports. There is no give-up: see `producer_config`.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from go2hooks.kafka.client import report
from go2hooks.kafka.refusals import AloneProducer, is_about_the_message

log = structlog.get_logger(__name__)

Headers = Sequence[tuple[str, bytes]]
OnRefused = Callable[[str], None]


class LoopProducer:
    """`produce` from the event loop; `on_kept` runs there when Kafka has acknowledged, or `on_refused` when it refuses the
    message for what it is (a topic may take less than we send).

    Any other refusal sets `failure`; the process is expected to stop, since nothing that depends on the message may be
    committed.
    """

    def __init__(self, config: dict[str, Any], loop: asyncio.AbstractEventLoop) -> None:
        self._producer = Producer(config | {"error_cb": self._on_error})
        self._alone = AloneProducer(config)
        self._loop = loop
        self._stop = threading.Event()
        self._report_thread = threading.Thread(target=self._serve, name="produce-reports", daemon=True)
        self._reported: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self.failure: str | None = None
        self._report_thread.start()

    def produce(
        self,
        topic: str,
        key: str,
        value: bytes,
        on_kept: Callable[[], None],
        on_refused: OnRefused,
        headers: Headers = (),
    ) -> None:
        """Queue a message. Blocks only while librdkafka's own queue is full. `on_refused` gets Kafka's words."""

        def acknowledge(error: KafkaError | None, message: Message) -> None:
            if error is None:
                self._report(on_kept)
            elif is_about_the_message(error):
                self._alone.send_again(message, list(headers), partial(self._settle, topic, on_kept, on_refused))
            else:
                self._fail(topic, error)

        while True:
            try:
                self._producer.produce(topic, value, key, on_delivery=acknowledge, headers=list(headers))
            except BufferError:
                self._producer.poll(0.05)
            except KafkaException as error:  # librdkafka's own limit, which is ours
                if not is_about_the_message(error.args[0]):
                    raise
                self._report(partial(on_refused, error.args[0].str()))
                return
            else:
                return

    async def flush(self, timeout_s: float) -> int:
        """Wait until all is acknowledged. Returns how many messages are not."""
        remaining: int = await asyncio.to_thread(self._producer.flush, timeout_s)
        return remaining + await asyncio.to_thread(self._alone.flush, timeout_s)

    async def stop(self) -> None:
        self._stop.set()
        await asyncio.to_thread(self._report_thread.join)

    def _serve(self) -> None:
        while not self._stop.is_set():
            self._producer.poll(0.1)
            self._alone.poll()

    def _report(self, callback: Callable[[], None]) -> None:
        with self._lock:
            self._reported.append(callback)
            first = len(self._reported) == 1
        if first:  # one wake-up for all that are reported together
            self._loop.call_soon_threadsafe(self._run_reported)

    def _settle(
        self, topic: str, on_kept: Callable[[], None], on_refused: OnRefused, error: KafkaError | None, message: Message
    ) -> None:
        """What came of a message that was sent again, alone."""
        if error is None:
            self._report(on_kept)
        elif is_about_the_message(error):
            log.error("kafka refuses a message", topic=topic, bytes=len(message), error=error.str())
            self._report(partial(on_refused, error.str()))
        else:
            self._fail(topic, error)

    def _fail(self, topic: str, error: KafkaError) -> None:
        self.failure = f"{topic}: {error.str()}"
        log.error("kafka refused a message for good", topic=topic, error=error.str())

    def _run_reported(self) -> None:
        with self._lock:
            reported, self._reported = self._reported, []
        for callback in reported:
            callback()

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self.failure = error.str()
        report(error, self._producer)
