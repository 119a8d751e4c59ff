"""The pool of a service that answers requests: quick to give up, quick to recover."""

from typing import Any, Final

from psycopg import Connection
from psycopg_pool import ConnectionPool

from go2hooks.postgres.vanished import NOTICED
from go2hooks.settings import Settings

CONNECT_TIMEOUT_S: Final = 2
CHECKOUT_TIMEOUT_S: Final = 2.0  # how long a request waits for a connection
STATEMENT_TIMEOUT_MS: Final = 5000
# Past this the pool stops trying, and the next request starts anew. Its own back-off would grow to minutes.
RECONNECT_TIMEOUT_S: Final = 5.0

Pool = ConnectionPool[Connection[Any]]


def open_pool(settings: Settings, *, service: str = "api", min_size: int = 1, max_size: int = 8) -> Pool:
    """A pool of autocommit connections, each checked before use. Returns at once, whether Postgres answers or not.

    `connection()` raises psycopg_pool.PoolTimeout (a psycopg.OperationalError) when none is to be had within 2 s.
    """
    return ConnectionPool(
        settings.database_url.get_secret_value(),
        min_size=min_size,
        max_size=max_size,
        timeout=CHECKOUT_TIMEOUT_S,
        reconnect_timeout=RECONNECT_TIMEOUT_S,
        check=ConnectionPool.check_connection,
        name=service,
        open=True,
        kwargs={
            "autocommit": True,
            "connect_timeout": CONNECT_TIMEOUT_S,
            "application_name": f"go2hooks-{service}",
            "options": f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c timezone=UTC",
            **NOTICED,
        },
    )
