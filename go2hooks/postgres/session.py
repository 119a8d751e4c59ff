"""Every connection to Postgres: how it is opened, and the settings of each transaction, with or without a pooler.

A pooler in transaction mode (PgBouncer's) gives each transaction to a server connection of its choice. So nothing may outlive a
transaction: no prepared statement, session setting, cursor or lock. `transaction()` sets what we rely on at the beginning
of each transaction, and every statement belongs into one. This also overrides what an administrator has set for a
database or a role: `DateStyle`, `TimeZone`, isolation, timeouts.
"""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, Self

import psycopg
from psycopg import AsyncConnection, AsyncTransaction, Connection, IsolationLevel, Transaction, sql
from psycopg.pq import TransactionStatus

from go2hooks.core.errors import SettingsError
from go2hooks.database_url import read_url

#: Options of libpq. The first five notice in seconds that a server's machine has vanished; else a connection to it hangs until
#: the kernel gives up: two hours where nothing is being sent, a quarter of an hour where something is. `options` is not sent:
#: PgBouncer refuses it.
_PARAMETERS: Final[dict[str, Any]] = {
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 10_000,
    "client_encoding": "UTF8",
    "options": "",
}
_RELIED_ON: Final = {
    "timezone": "UTC",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "array_nulls": "on",
    "extra_float_digits": "1",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}
CONNECT_TIMEOUT_S: Final = 5
_SERVER_ENCODING: Final = "UTF8"


class Session(Connection[Any]):
    """A connection in autocommit mode; every statement is run within `transaction()`."""

    relied_on: str  #: the statement that begins each transaction

    @classmethod
    def connect(  # type: ignore[override]  # what psycopg takes beside these is decided here
        cls, conninfo: str = "", *, name: str, statement_timeout_s: float = 30.0,
        connect_timeout_s: int = CONNECT_TIMEOUT_S, autocommit: bool = True,
    ) -> Self:  # fmt: skip
        """`name` is shown in pg_stat_activity. Without autocommit, the caller begins transactions.

        Raises psycopg.OperationalError when Postgres does not answer; SettingsError when the database is of no use.
        """
        parameters, relied_on = _prepare(conninfo, name, statement_timeout_s, connect_timeout_s)
        connection = super().connect(**parameters, autocommit=autocommit)
        connection.relied_on = relied_on
        try:
            check_encoding(connection.info)
        except SettingsError:
            connection.close()
            raise
        connection.isolation_level = IsolationLevel.READ_COMMITTED
        return connection

    @contextmanager
    def transaction(self, savepoint_name: str | None = None, force_rollback: bool = False) -> Iterator[Transaction]:  # noqa: FBT001, FBT002  # psycopg's
        is_first = self.info.transaction_status == TransactionStatus.IDLE
        with super().transaction(savepoint_name, force_rollback) as transaction:
            if is_first:
                self.execute(self.relied_on)
            yield transaction


class AsyncSession(AsyncConnection[Any]):
    """The same for asyncio."""

    relied_on: str

    @classmethod
    async def connect(  # type: ignore[override]  # as above
        cls, conninfo: str = "", *, name: str, statement_timeout_s: float = 30.0,
        connect_timeout_s: int = CONNECT_TIMEOUT_S,
    ) -> Self:  # fmt: skip
        parameters, relied_on = _prepare(conninfo, name, statement_timeout_s, connect_timeout_s)
        connection = await super().connect(**parameters, autocommit=True)
        connection.relied_on = relied_on
        try:
            check_encoding(connection.info)
        except SettingsError:
            await connection.close()
            raise
        await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
        return connection

    @asynccontextmanager
    async def transaction(
        self,
        savepoint_name: str | None = None,
        force_rollback: bool = False,  # noqa: FBT001, FBT002  # psycopg's
    ) -> AsyncIterator[AsyncTransaction]:
        is_first = self.info.transaction_status == TransactionStatus.IDLE
        async with super().transaction(savepoint_name, force_rollback) as transaction:
            if is_first:
                await self.execute(self.relied_on)
            yield transaction


def _prepare(url: str, name: str, statement_timeout_s: float, connect_timeout_s: int) -> tuple[dict[str, Any], str]:
    """The parameters of psycopg, and the statement that begins each transaction. Our settings override the URL's options."""
    try:
        conninfo, options = read_url(url, os.environ.get("PGOPTIONS", ""))
    except ValueError as error:
        raise SettingsError(f"the database's URL: {error}") from None
    wanted = options | _RELIED_ON | {"statement_timeout": str(round(statement_timeout_s * 1000))}
    settings = [sql.SQL("set_config({}, {}, true)").format(*pair) for pair in wanted.items()]
    parameters = _PARAMETERS | {
        "conninfo": conninfo,
        "application_name": f"go2hooks-{name}",
        "connect_timeout": connect_timeout_s,
        "prepare_threshold": None,
    }
    return parameters, sql.SQL("SELECT {}").format(sql.SQL(", ").join(settings)).as_string()


def check_encoding(info: psycopg.ConnectionInfo) -> None:
    """Raises SettingsError unless the database can keep every text that receivers and customers may send."""
    encoding = info.parameter_status("server_encoding")
    if encoding not in (None, _SERVER_ENCODING):
        raise SettingsError(
            f"the database {info.dbname} has the encoding {encoding}, which cannot keep every text: make one with "
            "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and name it in the database's URL"
        )


def is_pooled(connection: Connection[Any]) -> bool:
    """Whether a pooler is in between: it then makes up the process id that a session gets at its start.

    A notification for such a session may reach another client, or none.
    """
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    return row != (connection.info.backend_pid,)
