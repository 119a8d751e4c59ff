"""One poll thread around the synchronous consumer, handing batches to an asyncio loop.

`confluent_kafka.AIOConsumer` sends every call through a thread pool; one dedicated thread is cheaper and simpler.

What an offset means here: a stored offset is the next one to read after a restart, and librdkafka commits stored
offsets every half second, on revocation and on close. Nothing is stored that the sink has not declared finished.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, Protocol

import structlog
from confluent_kafka import Message, TopicPartition

from go2hooks.core.errors import Go2HooksError
from go2hooks.kafka.membership import Membership
from go2hooks.kafka.partitions import Assignment, PartitionKey, is_data

log = structlog.get_logger(__name__)

_POLL_S: Final = 0.1
_STALL_S: Final = 1.0  # a full window for this long pauses the partitions; pausing drops what was prefetched


class Sink(Protocol):
    """What receives a consumer's messages. Every method is called on the event loop."""

    def on_assigned(self, assignments: Sequence[Assignment]) -> None:
        """These partitions are ours; their messages follow."""

    def receive(self, messages: list[Message]) -> None:
        """Take these messages. Must not block."""

    async def on_revoked(self, keys: Sequence[PartitionKey]) -> dict[PartitionKey, int]:
        """Finish what is under way and give the offsets to commit. Bounded by the consumer's revoke timeout."""
        ...

    def on_lost(self, keys: Sequence[PartitionKey]) -> None:
        """These partitions went to another process without asking: their completions no longer count."""


class PolledConsumer:
    """Reads `topics` on a thread of its own, once started, and hands batches to a sink on `loop`.

    Messages that weigh `window` together, at most, are handed over and not yet released; beyond that Kafka has to wait. A
    message weighs 1 for every `unit_bytes` that it has begun, so that the window is bounded by messages and by bytes.
    """

    def __init__(
        self,
        config: dict[str, Any],
        topics: Sequence[str],
        loop: asyncio.AbstractEventLoop,
        *,
        window: int,
        unit_bytes: int,
        revoke_timeout_s: float,
        batch: int = 100,
    ) -> None:
        self._membership = Membership(config, topics, self, finish_s=revoke_timeout_s)
        self._consumer = self._membership.consumer
        self.topics = tuple(topics)
        self._loop = loop
        self._sink: Sink
        self.window = window  #: may be changed at any time
        self._unit_bytes = unit_bytes
        self._revoke_timeout_s = revoke_timeout_s
        self._batch = batch
        self._paused: set[PartitionKey] = set()  # at the sink's wish
        self._generations: dict[PartitionKey, int] = {}  # which partitions came with which
        self._generation = 0
        # The last one that the sink has heard of: what it says of a partition that came later is about one that went.
        self._heard_generation = 0
        self._stalled = False  # all are paused, until there is room
        # Each counter has one writer (poll thread, event loop), so their difference needs no lock.
        self._handed = 0
        self._released = 0
        self._room = threading.Event()
        self._stop = threading.Event()
        self._poll_thread = threading.Thread(target=self._run, name=f"poll-{config['group.id']}", daemon=True)
        self.failure: BaseException | None = None  #: what ended the thread, if it did not end by `stop`
        # One thread at a time may be inside a Consumer: a call from another would wait until poll returns, every time.
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    @property
    def ready(self) -> bool:
        """Whether all is read that is ours to be read, and Kafka is there. Any thread."""
        return self._membership.assigned and self._membership.reachable

    @property
    def lags(self) -> dict[PartitionKey, int]:
        """Messages not yet read, by partition; a second old at most."""
        return self._membership.lags

    def lag_unknown_s(self) -> float:
        """Seconds since `lags` was the whole truth; 0 while it is."""
        return self._membership.lag_unknown_s()

    def start(self, sink: Sink) -> None:
        self._sink = sink
        self._poll_thread.start()

    async def stop(self) -> None:
        """Revoke (finishing what is under way), commit, leave the group. Waits for the thread."""
        self._stop.set()
        self._room.set()
        if self._poll_thread.ident is not None:  # never started: there is nothing to leave
            await asyncio.to_thread(self._poll_thread.join)

    def weigh(self, size: int) -> int:
        """What a message of so many bytes counts for in the window."""
        return 1 if size <= self._unit_bytes else -(-size // self._unit_bytes)

    def release(self, weight: int = 1) -> None:
        """Handed messages of this weight are done with. Called on the event loop."""
        self._released += weight
        if not self._room.is_set():  # to set it again would take half a microsecond, for every delivery
            self._room.set()

    def store(self, offsets: dict[PartitionKey, int]) -> None:
        """Have librdkafka commit these offsets soon. Does not block; a partition that has moved away is left alone."""
        told = self._heard_generation
        self._commands.put(
            lambda: self._membership.store({k: o for k, o in offsets.items() if self._is_known(k, told)})
        )

    def pause(self, key: PartitionKey) -> None:
        """Read no more of this partition. Soon, and without blocking: a few more messages may come."""
        told = self._heard_generation
        self._commands.put(lambda: self._pause(key, told))

    def resume(self, key: PartitionKey) -> None:
        """Read on. Soon, and without blocking."""
        told = self._heard_generation
        self._commands.put(lambda: self._resume(key, told))

    def _hand_over(self, messages: list[Message]) -> None:
        """On the event loop. After a defect nothing more is taken: what is finished beyond it would be committed past it."""
        if self.failure is not None:
            return
        try:
            self._sink.receive(messages)
        except Go2HooksError as error:
            self.failure = error  # says all that there is to say
        except Exception as error:
            self.failure = error
            log.exception("messages could not be taken")

    # --- poll thread

    def _run(self) -> None:
        try:
            self._membership.subscribe()
            while not self._stop.is_set():
                self._step()
        except Go2HooksError as error:
            self.failure = error
        except BaseException as error:  # whatever it is ends the process: the owner watches `failure`
            self.failure = error
            log.exception("poll thread died")
        finally:
            self._consumer.close()

    def _step(self) -> None:
        self._obey()
        room = self.window - (self._handed - self._released)
        if room <= 0:
            self._wait_for_room()
            return
        first = self._consumer.poll(_POLL_S)
        if first is None:
            return
        others = min(room // self.weigh(len(first)), self._batch) - 1  # what comes together is mostly of a size
        rest = self._consumer.consume(others, 0) if others > 0 else []
        self._hand([m for m in (first, *rest) if is_data(m)])

    def _hand(self, messages: list[Message]) -> None:
        if messages:
            sizes = list(map(len, messages))
            self._handed += len(sizes) if max(sizes) <= self._unit_bytes else sum(map(self.weigh, sizes))
            self._loop.call_soon_threadsafe(self._hand_over, messages)

    def _obey(self) -> None:
        while not self._commands.empty():
            self._commands.get()()
        self._membership.tend(self._quiet)

    def _quiet(self) -> Collection[PartitionKey]:
        return self._membership.owned if self._stalled else self._paused

    def _wait_for_room(self) -> None:
        """Wait until half of the window is free. After a second, pause and go on polling: the group must see us alive."""
        stalled = time.monotonic() + _STALL_S
        while self._is_full() and time.monotonic() < stalled and not self._stop.is_set():
            self._obey()
            self._room.wait(0.05)
            self._room.clear()  # before looking again, so that no release in between is missed
        if not self._is_full() or self._stop.is_set():
            return
        self._stalled = True
        paused_at = -1
        while self._handed - self._released > self.window // 2 and not self._stop.is_set():
            self._obey()
            if paused_at != self._generation:  # partitions may have joined
                paused_at = self._generation
                self._consumer.pause([TopicPartition(*key) for key in self._membership.owned])
            leftover = self._consumer.poll(_POLL_S)
            if leftover is not None and is_data(leftover):
                self._hand([leftover])
        self._stalled = False
        self._consumer.resume([TopicPartition(*key) for key in self._membership.owned if key not in self._paused])

    def _is_full(self) -> bool:
        return self._handed - self._released >= self.window

    # --- as the owner of partitions

    def on_assigned(self, assignments: Sequence[Assignment]) -> None:
        self._generation += 1
        self._generations |= dict.fromkeys((assignment.key for assignment in assignments), self._generation)
        self._loop.call_soon_threadsafe(self._tell, assignments, self._generation)

    def _tell(self, assignments: Sequence[Assignment], generation: int) -> None:
        self._heard_generation = generation
        self._sink.on_assigned(assignments)

    def on_revoked(self, keys: Sequence[PartitionKey]) -> dict[PartitionKey, int]:
        self._disown(keys)
        finished = asyncio.run_coroutine_threadsafe(self._sink.on_revoked(keys), self._loop)
        try:
            return finished.result(self._revoke_timeout_s)
        except TimeoutError:
            finished.cancel()
            log.warning("partitions moved before all attempts ended; they may be sent again", partitions=len(keys))
            return {}

    def on_lost(self, keys: Sequence[PartitionKey]) -> None:
        self._disown(keys)
        self._loop.call_soon_threadsafe(self._sink.on_lost, keys)

    def _disown(self, keys: Sequence[PartitionKey]) -> None:
        self._paused.difference_update(keys)
        for key in keys:
            del self._generations[key]

    # --- commands

    def _is_known(self, key: PartitionKey, told: int) -> bool:
        """Whether the sink, having heard of so many generations, spoke of the partition as we have it now."""
        return self._generations.get(key, told + 1) <= told

    def _pause(self, key: PartitionKey, told: int) -> None:
        if self._is_known(key, told):
            self._paused.add(key)
            self._consumer.pause([TopicPartition(*key)])

    def _resume(self, key: PartitionKey, told: int) -> None:
        if self._is_known(key, told):
            self._paused.discard(key)
            if not self._stalled:
                self._consumer.resume([TopicPartition(*key)])
