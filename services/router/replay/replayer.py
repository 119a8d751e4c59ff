"""Carries out replays in turns: claim, find, write down, send, note that Kafka has it, note how the deliveries ended.

A batch is written down before it is sent, with how far the reading has come (`postgres/replaying.py`). So after a crash
at most the last batch is sent a second time, under the same attempt numbers, by which dispatchers recognise it.
"""

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import psycopg
import structlog
from psycopg import Connection

from go2hooks.core.errors import UnavailableError
from go2hooks.postgres import replaying
from go2hooks.postgres.away import Outage
from go2hooks.postgres.pool import Pool
from go2hooks.postgres.replaying import Job
from go2hooks.telemetry import metrics
from services.router.replay.finding import Log, NextDeliveries, Source, source_of
from services.router.replay.outbox import Outbox
from services.router.replay.pacing import Throttle

log = structlog.get_logger(__name__)

_AT_ONCE: Final = 4  # replays that take turns in a process; each reads ahead up to 16 MiB
_LOOK_S: Final = 0.25  # between two looks for new replays, and for how deliveries ended
_BATCHES: Final = 8  # whose deliveries are looked at together
_FORGET_S: Final = 3600.0  # between two deletions of replays that are over
_AGAIN_S: Final = 1.0  # after Postgres or Kafka did not answer
_DISABLED: Final = "The webhook was disabled: enable it, and replay what was not sent."


class Replayer:
    """Call `step` until the process stops, then `close`. A thread of its own keeps the leases."""

    def __init__(
        self,
        pool: Pool,
        log_: Log,
        outbox: Outbox,
        throttle: Throttle,
        *,
        retention_days: int,
        pause: Callable[[float], bool],
    ) -> None:
        """`pause` waits so many seconds, or until the process is to stop."""
        self._pool = pool
        self._log = log_
        self._outbox = outbox
        self._throttle = throttle
        self._retention_days = retention_days
        self._pause = pause
        self._name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._sources: dict[str, Source | None] = {}  # by replay; None until its first turn
        self._looked_at = self._forgot_at = float("-inf")
        self._outage = Outage("replayer")
        self._is_working = False
        self._closing = threading.Event()
        self._heart = threading.Thread(target=self._keep_leases, name="leases", daemon=True)
        self._heart.start()
        metrics.REPLAYS.read_from(lambda: {(): len(self._sources)})

    @property
    def ready(self) -> bool:
        """Whether Postgres and Kafka answered the last time."""
        return self._is_working

    def step(self) -> None:
        """One turn for each replay under way. Waits when there is nothing to do, or Postgres or Kafka is away."""
        try:
            with self._pool.connection() as connection:
                self._step(connection)
        except (psycopg.Error, UnavailableError) as error:
            self._is_working = False
            self._outage.tell(error)
            self._sources.clear()  # they begin again from what is written down
            self._pause(_AGAIN_S)
        else:
            self._is_working = True
            self._outage.end()

    def close(self) -> None:
        """Give the leases back, so that another process goes on at once."""
        self._closing.set()
        self._heart.join()
        try:
            with self._pool.connection() as connection:
                for replay_id in self._sources:
                    replaying.release(connection, replay_id, self._name)
        except psycopg.Error as error:
            log.info("leases were not given back; they end by themselves", error=type(error).__name__)
        self._sources.clear()

    def _keep_leases(self) -> None:
        """Renew the leases, however long a turn takes. Without Postgres they end, and another process may go on."""
        while not self._closing.wait(replaying.KEEP_S):
            if self._sources:
                with contextlib.suppress(psycopg.Error), self._pool.connection() as connection:
                    replaying.keep(connection, self._name)

    def _step(self, connection: Connection[Any]) -> None:
        self._look(connection)
        wait_s = self._throttle.wait_s() if self._sources else _LOOK_S
        if wait_s:
            if self._sources and self._throttle.is_held:
                metrics.REPLAY_HELD_SECONDS.add(wait_s)
            self._pause(min(wait_s, _LOOK_S))
            return
        for replay_id in list(self._sources):
            if not self._turn(connection, replay_id):
                self._sources.pop(replay_id)

    def _look(self, connection: Connection[Any]) -> None:
        """A few times a second, look for new replays, and for how deliveries ended."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_S:
            return
        self._looked_at = now
        while len(self._sources) < _AT_ONCE:
            job = replaying.claim(connection, self._name, self._sources)
            if job is None:
                break
            log.info("replay begins or goes on", replay=job.id, webhook=job.webhook_id, selection=job.selection)
            self._sources[job.id] = None
        replaying.settle(connection, _BATCHES)
        if now - self._forgot_at > _FORGET_S:
            replaying.forget(connection, self._retention_days)
            self._forgot_at = now

    def _turn(self, connection: Connection[Any], replay_id: str) -> bool:
        """Send the next batch of a replay. False when the replay is over, stopped, or another process has it."""
        job = replaying.renew(connection, replay_id, self._name)
        if job is None:
            return False
        if not job.is_active:
            replaying.fail(connection, replay_id, self._name, _DISABLED)
            return False
        source = self._sources[replay_id]
        if source is None:
            if job.unsent and not self._send_last(connection, job):
                return True
            source = self._sources[replay_id] = source_of(job, self._log)
        found = source.next(connection, job)
        if not self._send(connection, job, found):
            return False
        if found.is_end:
            replaying.all_sent(connection, replay_id, self._name)
            log.info("replay is sent", replay=replay_id)
        return not found.is_end

    def _send_last(self, connection: Connection[Any], job: Job) -> bool:
        """Send again the last batch, which Kafka may not have, or only in part. False when the process has to stop."""
        planned = replaying.unsent(connection, job.id, job.batch)
        deliveries = self._log.again(job.webhook_id, planned)
        if not self._outbox.write(deliveries):
            return False
        expired = {each.delivery_id for each in planned} - {delivery.id for delivery in deliveries}
        replaying.sent(connection, job.id, self._name, job.batch, expired)
        self._count(len(deliveries))
        return True

    def _send(self, connection: Connection[Any], job: Job, found: NextDeliveries) -> bool:
        """Send a batch. False when another process has the replay, or this one has to stop."""
        planned = [each.planned for each in found.selected]
        batch = replaying.write_batch(connection, job.id, self._name, found.step, planned)
        if batch is None:
            return False
        if planned:
            if not self._outbox.write([each.delivery for each in found.selected]):
                return False
            replaying.sent(connection, job.id, self._name, batch)
            self._count(len(planned))
        return True

    def _count(self, sent: int) -> None:
        metrics.REPLAY_SENT.add(sent)
        self._throttle.sent(sent)
