"""One poll thread around the synchronous consumer, handing batches to an asyncio loop.

`confluent_kafka.AIOConsumer` sends every call through a thread pool; one dedicated thread is cheaper and simpler.

What an offset means here: a stored offset is the next one to read after a restart, and librdkafka commits stored
offsets every half second, on revocation and on close. Nothing is stored that the sink has not declared finished.
"""

import asyncio
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import starmap
from typing import Any, Final, NamedTuple, Protocol

import structlog
from confluent_kafka import OFFSET_END, OFFSET_INVALID, Consumer, KafkaError, KafkaException, Message, TopicPartition

from go2hooks.core.delivery import Position

log = structlog.get_logger(__name__)

_POLL_S: Final = 0.1
_STALL_S: Final = 1.0  # a full window for this long pauses the partitions; pausing drops what was prefetched
_LOOKUP_S: Final = 5.0
_MEASURE_S: Final = 0.5


class PartitionKey(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


class Assignment(NamedTuple):
    """A partition that has come to this process."""

    key: PartitionKey
    suspect_until: int  #: messages below this offset may have been handled before: by us or by an earlier owner


class Sink(Protocol):
    """What receives a consumer's messages. Every method is called on the event loop."""

    def assigned(self, assignments: Sequence[Assignment]) -> None:
        """These partitions are ours; their messages follow."""

    def receive(self, messages: list[Message]) -> None:
        """Take these messages. Must not block."""

    async def revoked(self, keys: Sequence[PartitionKey]) -> dict[PartitionKey, int]:
        """Finish what is under way and give the offsets to commit. Bounded by the consumer's revoke timeout."""
        ...

    def lost(self, keys: Sequence[PartitionKey]) -> None:
        """These partitions went to another process without asking: their completions no longer count."""


def position_of(message: Message) -> Position:
    """Where a consumed message lies."""
    return Position(message.topic(), message.partition(), message.offset())  # type: ignore[arg-type]  # consumed: has all three


def suspect_limits(consumer: Consumer, partitions: Sequence[TopicPartition]) -> dict[PartitionKey, int]:
    """End of each log at assignment: what lies below may have been handled before. All of it when Kafka won't say.

    One question for all of them: asked one by one, each would wait behind a fetch that waits for messages, 200 ms a
    partition, while nothing is read.
    """
    if not partitions:  # a rebalance that brings nothing new; librdkafka refuses the question
        return {}
    ends = [TopicPartition(p.topic, p.partition, OFFSET_END) for p in partitions]
    try:
        found = consumer.offsets_for_times(ends, timeout=_LOOKUP_S)
    except KafkaException as error:
        log.warning("ends of logs unavailable; every message counts as suspect", error=str(error))
        return {PartitionKey(p.topic, p.partition): sys.maxsize for p in partitions}
    return {PartitionKey(p.topic, p.partition): sys.maxsize if p.error else int(p.offset) for p in found}


def backlog(
    consumer: Consumer, owned: Iterable[PartitionKey], quiet: Iterable[PartitionKey] = ()
) -> dict[PartitionKey, int]:
    """Messages of these partitions between what was read and the end of the log, as far as librdkafka has heard.

    Of `quiet` ones, which are paused, it hears nothing: Kafka is asked, for a second at most.
    """
    ends, starts = _bounds(consumer, quiet)
    partitions = [TopicPartition(key.topic, key.partition) for key in owned]
    lags: dict[PartitionKey, int] = {}
    for partition in consumer.position(partitions) if partitions else ():
        key = PartitionKey(partition.topic, partition.partition)
        high = ends.get(key, consumer.get_watermark_offsets(partition, cached=True)[1])
        position = partition.offset if partition.offset >= 0 else starts.get(key, -1)  # it has none until a first read
        if high >= 0 and position >= 0:
            lags[key] = max(0, high - position)
    return lags


def _bounds(
    consumer: Consumer, keys: Iterable[PartitionKey]
) -> tuple[dict[PartitionKey, int], dict[PartitionKey, int]]:
    """Ends of these logs, and the offsets where reading began or will begin. Empty when Kafka does not say in time."""
    asked = [TopicPartition(key.topic, key.partition, OFFSET_END) for key in keys]
    if not asked:
        return {}, {}
    try:
        found = consumer.offsets_for_times(asked, timeout=_MEASURE_S)
        committed = consumer.committed(asked, timeout=_MEASURE_S)
    except KafkaException as error:
        log.info("bounds of paused logs unavailable; their lag is as it was", error=str(error))
        return {}, {}
    ends = {PartitionKey(p.topic, p.partition): int(p.offset) for p in found if p.error is None}
    # Without a commit reading begins at the log's start; 0 overstates the lag of a log whose first part has expired.
    starts = {PartitionKey(p.topic, p.partition): max(0, int(p.offset)) for p in committed if p.error is None}
    return ends, starts


class PolledConsumer:
    """Reads `topics` on a thread of its own and hands batches to `sink` on `loop`.

    At most `window` messages are handed over and not yet released; beyond that Kafka has to wait.
    """

    def __init__(
        self,
        config: dict[str, Any],
        topics: Sequence[str],
        sink: Sink,
        loop: asyncio.AbstractEventLoop,
        *,
        window: int,
        revoke_timeout_s: float,
        batch: int = 100,
    ) -> None:
        self._consumer = Consumer(config | {"error_cb": self._on_error})
        self.topics = tuple(topics)
        self._sink = sink
        self._loop = loop
        self.window = window  #: may be changed at any time
        self._revoke_timeout_s = revoke_timeout_s
        self._batch = batch
        # Each counter has one writer (poll thread, event loop), so their difference needs no lock.
        self._owned: tuple[PartitionKey, ...] = ()
        self._paused: set[PartitionKey] = set()  # at the sink's wish
        self._stalled = False  # all are paused, until there is room
        self._handed = 0
        self._released = 0
        self._room = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"poll-{config['group.id']}", daemon=True)
        self.failure: BaseException | None = None  #: what ended the thread, if it did not end by `stop`
        self.assigned = False  #: whether a first assignment has arrived
        self.reachable = True  #: False from the moment all brokers are away until one answers again
        self.lags: dict[PartitionKey, int] = {}  #: messages not yet read, by partition; a second old at most
        self._asked_at = 0.0
        self._measured_at = 0.0
        # One thread at a time may be inside a Consumer: a call from another would wait until poll returns, every time.
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        """Revoke (finishing what is under way), commit, leave the group. Waits for the thread."""
        self._stop.set()
        self._room.set()
        if self._thread.ident is not None:  # never started: there is nothing to leave
            await asyncio.to_thread(self._thread.join)

    def release(self, count: int = 1) -> None:
        """`count` handed messages are done with. Called on the event loop."""
        self._released += count
        self._room.set()

    def store(self, offsets: dict[PartitionKey, int]) -> None:
        """Have librdkafka commit these offsets soon. Does not block; a partition that has moved away is left alone."""
        self._commands.put(lambda: self._store(offsets))

    def pause(self, key: PartitionKey) -> None:
        """Read no more of this partition. Soon, and without blocking: a few more messages may come."""
        self._commands.put(lambda: self._pause(key))

    def resume(self, key: PartitionKey) -> None:
        """Read on. Soon, and without blocking."""
        self._commands.put(lambda: self._resume(key))

    def _hand_over(self, messages: list[Message]) -> None:
        """On the event loop. After a defect nothing more is taken: what is finished beyond it would be committed past it."""
        if self.failure is not None:
            return
        try:
            self._sink.receive(messages)
        except Exception as error:
            self.failure = error
            log.exception("messages could not be taken")

    # --- poll thread

    def _run(self) -> None:
        try:
            self._consumer.subscribe(
                list(self.topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
            while not self._stop.is_set():
                self._step()
        except BaseException as error:  # whatever it is ends the process: the owner watches `failure`
            self.failure = error
            log.exception("poll thread died")
        finally:
            self._consumer.close()

    def _step(self) -> None:
        self._obey()
        if not self.reachable:
            self._ask_for_brokers()
        room = self.window - (self._handed - self._released)
        if room <= 0:
            self._wait_for_room()
            return
        first = self._consumer.poll(_POLL_S)
        if first is None:
            return
        rest = self._consumer.consume(min(room, self._batch) - 1, 0) if room > 1 else []
        messages = [m for m in (first, *rest) if self._is_data(m)]
        if messages:
            self._handed += len(messages)
            self._loop.call_soon_threadsafe(self._hand_over, messages)

    def _obey(self) -> None:
        while not self._commands.empty():
            self._commands.get()()
        if time.monotonic() - self._measured_at >= 1.0:
            self._measured_at = time.monotonic()
            self.lags = backlog(self._consumer, self._owned, self._owned if self._stalled else self._paused)

    def _ask_for_brokers(self) -> None:
        """Once a second, until one answers; librdkafka reconnects by itself but does not say so."""
        if time.monotonic() - self._asked_at < 1.0:
            return
        try:
            self._consumer.list_topics(self.topics[0], timeout=0.5)
            self.reachable = True
        except KafkaException:
            self._asked_at = time.monotonic()

    def _wait_for_room(self) -> None:
        """Wait until half of the window is free. After a second, pause and go on polling: the group must see us alive."""
        stalled = time.monotonic() + _STALL_S
        while self._is_full() and time.monotonic() < stalled and not self._stop.is_set():
            self._obey()
            self._room.clear()
            self._room.wait(0.05)
        if not self._is_full() or self._stop.is_set():
            return
        self._stalled = True
        while self._handed - self._released > self.window // 2 and not self._stop.is_set():
            self._consumer.pause(
                [TopicPartition(*key) for key in self._owned]
            )  # again each time: partitions may have joined
            self._obey()
            leftover = self._consumer.poll(_POLL_S)
            if leftover is not None and self._is_data(leftover):
                self._handed += 1
                self._loop.call_soon_threadsafe(self._hand_over, [leftover])
        self._stalled = False
        self._consumer.resume([TopicPartition(*key) for key in self._owned if key not in self._paused])

    def _is_full(self) -> bool:
        return self._handed - self._released >= self.window

    def _is_data(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            return True
        if error.fatal():
            raise KafkaException(error)
        log.warning("kafka reports", error=error.str())
        return False

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        assignments = list(starmap(Assignment, suspect_limits(consumer, partitions).items()))
        consumer.incremental_assign(partitions)
        consumer.resume(partitions)  # librdkafka keeps a partition paused that was so when it left us
        self._loop.call_soon_threadsafe(self._sink.assigned, assignments)
        self._owned = (*self._owned, *(assignment.key for assignment in assignments))
        self.assigned = True

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        keys = self._disown(partitions)
        finished = asyncio.run_coroutine_threadsafe(self._sink.revoked(keys), self._loop)
        try:
            offsets = finished.result(self._revoke_timeout_s)
        except TimeoutError:
            finished.cancel()
            log.warning("partitions moved before all attempts ended; they may be sent again", partitions=len(keys))
            offsets = {}
        self._store(offsets)  # or leaving them, librdkafka would commit what was stored last: a step back
        _commit(consumer, offsets)
        consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        keys = self._disown(partitions)
        log.warning("partitions lost", partitions=len(keys))
        self._loop.call_soon_threadsafe(self._sink.lost, keys)
        consumer.incremental_unassign(partitions)

    def _disown(self, partitions: list[TopicPartition]) -> list[PartitionKey]:
        keys = [PartitionKey(p.topic, p.partition) for p in partitions]
        self._owned = tuple(key for key in self._owned if key not in keys)
        self._paused.difference_update(keys)
        return keys

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001  # that is the binding's name for it
            self.reachable = False
        log.warning("kafka client reports", error=error.str(), fatal=error.fatal())

    def _store(self, offsets: dict[PartitionKey, int]) -> None:
        for key, offset in offsets.items():
            try:
                self._consumer.store_offsets(offsets=[TopicPartition(key.topic, key.partition, offset)])
            except KafkaException as error:
                log.info("offset not stored: the partition has moved", topic=key.topic, error=str(error))

    def _pause(self, key: PartitionKey) -> None:
        self._paused.add(key)
        self._toggle(self._consumer.pause, key)

    def _resume(self, key: PartitionKey) -> None:
        self._paused.discard(key)
        self._toggle(self._consumer.resume, key)

    def _toggle(self, verb: Any, key: PartitionKey) -> None:
        try:
            verb([TopicPartition(key.topic, key.partition)])
        except KafkaException as error:
            log.info("partition has moved", topic=key.topic, partition=key.partition, error=str(error))


def _commit(consumer: Consumer, offsets: dict[PartitionKey, int]) -> None:
    """Commit now. A refusal costs duplicates that the records will recognise, so it is logged and no more."""
    if not offsets:
        return
    try:
        consumer.commit(
            offsets=[TopicPartition(k.topic, k.partition, o) for k, o in offsets.items() if o != OFFSET_INVALID],
            asynchronous=False,
        )
    except KafkaException as error:
        log.warning("offsets not committed on revocation", error=str(error))
