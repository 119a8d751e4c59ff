"""The id of the deployment that a database belongs to; `migrate` makes it."""

from collections.abc import Callable
from typing import Any, Final

import psycopg
from psycopg import Connection

from go2hooks.core.errors import UnavailableError
from go2hooks.postgres.away import Outage
from go2hooks.postgres.pool import Pool

_FIND: Final = "SELECT id FROM deployment"


def find_deployment(connection: Connection[Any]) -> str:
    """`dep_` and 12 hex digits. Raises psycopg.Error; UnavailableError where somebody has deleted it."""
    row = connection.execute(_FIND).fetchone()
    if row is None:
        raise UnavailableError(
            "the table deployment is empty: restore its row, or insert a new id and run go2hooks topics adopt"
        )
    return str(row[0])


def wait_for_deployment(pool: Pool, pause: Callable[[float], bool]) -> str | None:
    """The same, once Postgres answers. `pause` waits the given seconds and returns whether to give up; then None."""
    outage = Outage("deployment")
    while True:
        try:
            with pool.transaction() as connection:
                return find_deployment(connection)
        except psycopg.Error as error:
            if pause(outage.tell(error)):
                return None
