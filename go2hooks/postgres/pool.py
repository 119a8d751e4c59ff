"""The pool of a service that answers requests: quick to give up, quick to recover."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

import psycopg
from psycopg import IsolationLevel
from psycopg_pool import ConnectionPool

from go2hooks.core.errors import SettingsError
from go2hooks.postgres.session import Session
from go2hooks.settings import Settings

STATEMENT_TIMEOUT_S: Final = 5.0


class Pool(ConnectionPool[Session]):
    """Each connection is checked before use, and used for one transaction."""

    @contextmanager
    def transaction(self, isolation: IsolationLevel = IsolationLevel.READ_COMMITTED) -> Iterator[Session]:
        """A connection in a transaction of its own, committed at the end of the block: read and render answers within.

        Raises psycopg_pool.PoolTimeout (a psycopg.OperationalError) when none is to be had within 2 s.
        """
        with self.connection() as session:
            session.isolation_level = isolation
            with session.transaction():
                yield session

    def try_connecting(self) -> Exception | None:
        """Open a connection outside of the pool, within 2 s. Returns the error; None when it succeeds."""
        try:
            Session.connect(str(self.conninfo), **cast("dict[str, Any]", self.kwargs)).close()
        except (psycopg.Error, SettingsError) as error:
            return error
        return None


def open_pool(settings: Settings, *, service: str = "api", min_size: int = 1, max_size: int = 8) -> Pool:
    """Returns at once, whether Postgres answers or not."""
    return Pool(
        settings.database_url.get_secret_value(),
        connection_class=Session,
        min_size=min_size,
        max_size=max_size,
        timeout=2.0,  # a request waits no longer for a connection
        # Past this the pool stops trying, and the next request starts anew. Its own back-off would grow to minutes.
        reconnect_timeout=5.0,
        check=ConnectionPool.check_connection,
        name=service,
        open=True,
        kwargs={
            "name": service,
            "connect_timeout_s": 2,
            "statement_timeout_s": STATEMENT_TIMEOUT_S,
        },
    )
