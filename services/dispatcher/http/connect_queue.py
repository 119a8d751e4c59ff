"""Per origin: whether a connection may be opened, and which attempts wait for one.

Opening a connection costs more than many requests, on both sides. So few are made at a time, and none while others that
were made go unanswered (`core/flow/serving.py`). Who waits takes the first connection that becomes idle.

While a receiver has served one connection only, a later request opens another beside it. This shows whether the
receiver has a second worker.
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from go2hooks.core.flow.serving import Opening, Serving
from services.dispatcher.http.connection import Connection, Origin
from services.dispatcher.http.deadlines import Bucket
from services.dispatcher.http.few_workers import FewWorkers, QueueLimits, age_s


class Waiter:
    """Waits for a connection, or for permission to open one. The result is None when time is up."""

    __slots__ = ("began", "result")

    def __init__(self) -> None:
        self.began: Final = time.monotonic()
        self.result: asyncio.Future[Connection | Opening | None] = asyncio.get_running_loop().create_future()

    def expire(self) -> None:
        if not self.result.done():
            self.result.set_result(None)


class Waiters(dict[Waiter, None]):
    """Attempts that wait, in the order in which they came."""

    __slots__ = ()

    def next(self) -> Waiter | None:
        """Remove and return who has waited longest. Skips those that were cancelled, whose tasks have not run since."""
        while self:
            waiter = next(iter(self))
            del self[waiter]
            if not waiter.result.done():
                return waiter
        return None

    def hand_over(self, connection: Connection) -> bool:
        """Give an idle connection to who has waited longest; False when nobody waits."""
        waiter = self.next()
        if waiter is None:
            return False
        waiter.result.set_result(connection)
        return True

    def waited_s(self, now: float) -> float:
        """How long the first one has waited; 0 when nobody does."""
        return now - next(iter(self)).began if self else 0.0

    def expire(self) -> None:
        for waiter in self:
            waiter.expire()


class ConnectQueue:
    """Of one origin. Belongs to one event loop."""

    __slots__ = ("_dialling", "_is_watched", "_limits", "_on_change", "_open", "_waiters", "few_workers", "serving")

    def __init__(
        self, limits: QueueLimits, close_idle: Callable[[], bool], on_change: Callable[["ConnectQueue"], None]
    ) -> None:
        """`close_idle` closes the connection that has been idle for longest; False when none is.

        `on_change` is called after something has ended that kept this queue in use.
        """
        self.serving = Serving()
        self.few_workers = FewWorkers(self.serving, limits, close_idle, self._wake)
        self._waiters = Waiters()
        self._limits = limits
        self._on_change = on_change
        self._open = 0
        self._dialling = 0  # connections that are being made
        self._is_watched = False

    @property
    def is_in_use(self) -> bool:
        """Whether there is anything to remember."""
        return bool(self._open or self._dialling or self._waiters or self.few_workers.is_remembered)

    # --- opening

    async def enter(self, bucket: Bucket) -> Connection | Opening | None:
        """A connection that has become idle; or permission to open one: `made` or `failed` has to follow.

        None when time is up, or after `close`.
        """
        if self._may_open():
            return self.begin()
        waiter = Waiter()
        self._waiters[waiter] = None
        self._watch()
        bucket.add(waiter)
        try:
            return await waiter.result
        except asyncio.CancelledError:
            self._pass_on(waiter)
            raise
        finally:
            bucket.discard(waiter)
            self._waiters.pop(waiter, None)
            self._on_change(self)

    def begin(self) -> Opening:
        """A connection is being made: `made` or `failed` has to follow."""
        self._dialling += 1
        self._watch()
        return self.serving.begin(time.monotonic())

    def made(self, connection: Connection, opening: Opening) -> None:
        """The connection is open: the next one may be made."""
        connection.opening = opening
        self._open += 1
        self._dialling -= 1
        self._wake()

    def failed(self, opening: Opening) -> None:
        """The connection could not be made."""
        self._dialling -= 1
        self.serving.give_up(opening)
        self._wake()

    def lost(self, connection: Connection) -> None:
        """A connection that was made is closed."""
        self._open -= 1
        if connection.opening is None:
            self.serving.lose()
        else:
            self.serving.give_up(connection.opening)
        self._wake()

    def release(self, connection: Connection) -> bool:
        """A connection was answered on and may be used again. It goes to who waits longest, or is closed to make room.

        False when neither applies: the caller keeps it.
        """
        serving = self.serving
        if connection.opening is None:
            serving.answer(connection.asked_at, connection.idle_since)
        else:
            self.few_workers.first_answer(connection.opening, connection.idle_since)
            connection.opening = None
        if self.few_workers.takes(connection):
            connection.close()
            return True
        if self._waiters and self._waiters.hand_over(connection):
            self._wake()
            return True
        connection.is_alone = serving.is_unproven and age_s(connection) > self._limits.overdue_s
        return False

    def close(self) -> None:
        """Nobody waits any more."""
        self._waiters.expire()
        self.few_workers.close()

    # --- internal

    def _may_open(self) -> bool:
        return self._may_dial() and self.serving.may_open()

    def _may_dial(self) -> bool:
        return self._dialling < max(self._limits.at_once, self._open // self._limits.open_per_opening)

    def _wake(self) -> None:
        """Something has changed that others may wait for."""
        while self._waiters and self._may_open():
            self._let_open()
        self._on_change(self)

    def _let_open(self) -> None:
        waiter = self._waiters.next()
        if waiter is not None:
            waiter.result.set_result(self.begin())

    def _pass_on(self, waiter: Waiter) -> None:
        """The waiter was cancelled right after it got something: give that to the next one."""
        result = None if waiter.result.cancelled() else waiter.result.result()
        if isinstance(result, Opening):
            self.failed(result)
        elif isinstance(result, Connection) and not self._waiters.hand_over(result):
            result.close()

    def _watch(self) -> None:
        """Look regularly at those that wait for a first answer or for a connection, as long as any do."""
        if not self._is_watched:
            self._is_watched = True
            asyncio.get_running_loop().call_later(self._limits.overdue_s, self._look)

    def _look(self) -> None:
        self._is_watched = self.serving.has_unanswered or bool(self._waiters)
        if not self._is_watched:
            return
        now = time.monotonic()
        self.few_workers.make_room(now)
        while self._may_dial() and self._waiters.waited_s(now) > self._limits.overdue_s:
            self._let_open()
        asyncio.get_running_loop().call_later(self._limits.watch_s, self._look)


class ConnectQueues:
    """Of all origins. Remembers an origin while anything is open, being made, or waited for there.

    That it has few workers is remembered for as long as a connection may be idle.
    """

    def __init__(self, limits: QueueLimits, close_idle: Callable[[Origin], bool]) -> None:
        """`close_idle` closes the connection to an origin that has been idle for longest; False when none is idle."""
        self._limits = limits
        self._close_idle = close_idle
        self._queues: dict[Origin, ConnectQueue] = {}

    def __len__(self) -> int:
        return len(self._queues)

    def of(self, origin: Origin) -> ConnectQueue:
        queue = self._queues.get(origin)
        if queue is None:
            queue = self._queues[origin] = ConnectQueue(
                self._limits, partial(self._close_idle, origin), partial(self._tidy, origin)
            )
        return queue

    def one_idle_s(self, origin: Origin) -> float:
        """See `FewWorkers.one_idle_s`."""
        queue = self._queues.get(origin)
        return self._limits.idle_s if queue is None else queue.few_workers.one_idle_s

    def close(self) -> None:
        """Nobody waits any more."""
        for queue in self._queues.values():
            queue.close()

    def _tidy(self, origin: Origin, queue: ConnectQueue) -> None:
        if not queue.is_in_use and self._queues.get(origin) is queue:
            del self._queues[origin]
