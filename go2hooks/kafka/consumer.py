"""One poll thread around the synchronous consumer, which hands batches to an asyncio loop.

`confluent_kafka.AIOConsumer` sends every call through a thread pool; one dedicated thread is cheaper and simpler.

A stored offset is the next one to read after a restart. librdkafka commits stored offsets every half second, on
revocation and on close. Nothing is stored that the sink has not declared finished.
"""

import asyncio
import threading
import time
from collections.abc import Collection, Sequence
from typing import Any, Final, Protocol

import structlog
from confluent_kafka import Message, TopicPartition

from go2hooks.core.errors import Go2HooksError
from go2hooks.kafka.commands import Commands
from go2hooks.kafka.membership import Membership
from go2hooks.kafka.partitions import Assignment, PartitionKey, is_data
from go2hooks.kafka.read_window import ReadWindow

log = structlog.get_logger(__name__)

_BATCH: Final = 100  # messages that are handed over together: the loop takes them in a few milliseconds
_POLL_S: Final = 0.1  # a command or a request to stop is seen after that
_ROOM_S: Final = 0.05  # likewise while the window is full
_STALL_S: Final = 1.0  # a window that is full for longer pauses the partitions; pausing drops what was prefetched


class Sink(Protocol):
    """Receives a consumer's messages. Every method is called on the event loop."""

    def on_assigned(self, assignments: Sequence[Assignment]) -> None:
        """These partitions are ours; their messages follow."""

    def receive(self, messages: list[Message]) -> None:
        """Take these messages. Must not block."""

    async def on_revoked(self, keys: Sequence[PartitionKey]) -> dict[PartitionKey, int]:
        """Finish what is under way and give the offsets to commit. Bounded by the consumer's revoke timeout."""
        ...

    def on_lost(self, keys: Sequence[PartitionKey]) -> None:
        """These partitions went to another process without asking: their completions no longer count."""


class Pauses:
    """Which partitions rest: those that the sink has paused, and all while the window stays full. Poll thread."""

    def __init__(self, membership: Membership, window: ReadWindow) -> None:
        self._membership = membership
        self._window = window
        self._by_sink: set[PartitionKey] = set()
        self._full_since: float | None = None
        self.stalled: Sequence[PartitionKey] | None = None  #: all partitions, when they rest because of the window

    def may_poll(self) -> bool:
        """Whether to poll now. While the window is full, wait for room instead; but a member that does not poll is
        removed from its group, so after a second pause all partitions and poll on, until half of the window is free.
        """
        room, half = self._window.room, self._window.size - self._window.size // 2
        if self.stalled is not None and room >= half:
            self._go_on()
        elif self.stalled is not None:
            self._stall()  # partitions may have joined
        elif room > 0:
            self._full_since = None
        else:
            now = time.monotonic()
            self._full_since = self._full_since or now
            if now - self._full_since < _STALL_S:
                self._window.wait(_ROOM_S)
                return False
            self._stall()
        return True

    def resting(self) -> Collection[PartitionKey]:
        return self._by_sink if self.stalled is None else self._membership.owned

    def pause(self, keys: Collection[PartitionKey]) -> None:
        """At the sink's wish."""
        self._by_sink.update(keys)
        self._membership.consumer.pause([TopicPartition(*key) for key in keys])

    def resume(self, keys: Collection[PartitionKey]) -> None:
        """At the sink's wish, once there is room."""
        self._by_sink.difference_update(keys)
        if self.stalled is None:
            self._membership.consumer.resume([TopicPartition(*key) for key in keys])

    def gone(self, keys: Collection[PartitionKey]) -> None:
        self._by_sink.difference_update(keys)

    def _stall(self) -> None:
        if self.stalled != self._membership.owned:
            self.stalled = self._membership.owned
            self._membership.consumer.pause([TopicPartition(*key) for key in self.stalled])

    def _go_on(self) -> None:
        self.stalled = self._full_since = None
        self.resume([key for key in self._membership.owned if key not in self._by_sink])


class PolledConsumer:
    """Reads `topics` on a thread of its own, once started, and hands batches to a sink on `loop`.

    See `ReadWindow` for how much is handed over and not yet released.
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
    ) -> None:
        self._membership = Membership(config, topics, self, finish_s=revoke_timeout_s)
        self._consumer = self._membership.consumer
        self.topics = tuple(topics)
        self._loop = loop
        self._sink: Sink
        self.window = ReadWindow(window, unit_bytes)
        self.weigh, self.release = self.window.weigh, self.window.release  # as they are, for each delivery
        self._revoke_timeout_s = revoke_timeout_s
        self._pauses = Pauses(self._membership, self.window)
        self._commands = Commands()
        self._stop = threading.Event()
        self._poll_thread = threading.Thread(target=self._run, name=f"poll-{config['group.id']}", daemon=True)
        self.failure: BaseException | None = None  #: what ended the thread, if it did not end by `stop`

    @property
    def ready(self) -> bool:
        """Whether every partition assigned to this process is read, and Kafka answers. Any thread."""
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
        self.window.wake()
        if self._poll_thread.ident is not None:  # never started: there is nothing to leave
            await asyncio.to_thread(self._poll_thread.join)

    # --- for the sink: none of these blocks

    def store(self, offsets: dict[PartitionKey, int]) -> None:
        """Have librdkafka commit these offsets soon. A partition that has moved away is left alone."""
        self._commands.put(offsets, lambda keys: self._membership.store({key: offsets[key] for key in keys}))

    def pause(self, key: PartitionKey) -> None:
        """Read no more of this partition."""
        self._commands.put([key], self._pauses.pause)

    def resume(self, key: PartitionKey) -> None:
        """Read on."""
        self._commands.put([key], self._pauses.resume)

    def _hand_over(self, messages: list[Message]) -> None:
        """On the event loop. After a defect nothing more is taken: what is finished beyond it would be committed past
        it.
        """
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
        self._commands.obey()
        self._membership.tend(self._pauses.resting)
        first = self._consumer.poll(_POLL_S) if self._pauses.may_poll() else None
        if first is None:
            return
        others = min(self.window.room // self.weigh(len(first)), _BATCH) - 1  # what comes together is mostly of a size
        rest = self._consumer.consume(others, 0) if others > 0 else []
        messages = [m for m in (first, *rest) if is_data(m)]
        if messages:
            self.window.take(list(map(len, messages)))
            self._loop.call_soon_threadsafe(self._hand_over, messages)

    # --- as the owner of partitions

    def on_assigned(self, assignments: Sequence[Assignment]) -> None:
        generation = self._commands.assigned(assignment.key for assignment in assignments)
        self._loop.call_soon_threadsafe(self._commands.heard, generation)
        self._loop.call_soon_threadsafe(self._sink.on_assigned, assignments)

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
        self._commands.gone(keys)
        self._pauses.gone(keys)
