"""The dispatcher's producer: called on the event loop, it reports there when Kafka has a message.

One thread serves delivery reports.
"""

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog
from confluent_kafka import KafkaError, Message

from go2hooks.kafka.producing import Headers, InternalProducer, RefusedError, enqueue, is_about_the_message

log = structlog.get_logger(__name__)

OnRefused = Callable[[str], None]


class LoopProducer:
    """Kafka acknowledges each message, or refuses it for what it is (a topic may take less than we send). Any other
    refusal sets `failure`.
    """

    def __init__(self, config: dict[str, Any], loop: asyncio.AbstractEventLoop) -> None:
        self._kafka = InternalProducer(config)
        self._loop = loop
        self._stop = threading.Event()
        self._report_thread = threading.Thread(target=self._serve, name="produce-reports", daemon=True)
        self._reported: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._report_thread.start()

    @property
    def failure(self) -> str | None:
        return self._kafka.failure

    def produce(
        self,
        topic: str,
        key: str,
        value: bytes,
        on_kept: Callable[[], None],
        on_refused: OnRefused,
        headers: Headers | None = None,
    ) -> None:
        """Queue a message. Blocks only while librdkafka's own queue is full.

        On the event loop, `on_kept` is called when Kafka has it, or `on_refused` with Kafka's words.
        """

        def acknowledge(error: KafkaError | None, message: Message) -> None:
            if error is None:
                self._report(on_kept)
            else:
                self._kafka.send_again(error, message, headers, partial(self._settle, on_kept, on_refused))

        try:
            enqueue(self._kafka.client, topic, key, value, acknowledge, headers)
        except RefusedError as error:  # librdkafka's own limit, which is ours
            if not is_about_the_message(error.reason):
                raise
            self._report(partial(on_refused, str(error)))

    async def flush(self, timeout_s: float) -> int:
        """Wait until all is acknowledged. Returns how many messages are not."""
        return await asyncio.to_thread(self._kafka.flush, timeout_s)

    async def stop(self) -> None:
        self._stop.set()
        await asyncio.to_thread(self._report_thread.join)

    def _serve(self) -> None:
        while not self._stop.is_set():
            self._kafka.poll(0.1)

    def _settle(
        self, on_kept: Callable[[], None], on_refused: OnRefused, error: KafkaError | None, message: Message
    ) -> None:
        if error is None:
            self._report(on_kept)
        else:
            log.error("kafka refuses a message", topic=message.topic(), bytes=len(message), error=error.str())
            self._report(partial(on_refused, error.str()))

    def _report(self, callback: Callable[[], None]) -> None:
        with self._lock:
            self._reported.append(callback)
            first = len(self._reported) == 1
        if first:  # one wake-up for all that are reported together
            self._loop.call_soon_threadsafe(self._run_reported)

    def _run_reported(self) -> None:
        with self._lock:
            reported, self._reported = self._reported, []
        for callback in reported:
            callback()
