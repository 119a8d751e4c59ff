"""Which deployment a database is; `migrate` names it."""

from typing import Any, Final

from psycopg import Connection

from go2hooks.core.errors import UnavailableError

_FIND: Final = "SELECT id FROM deployment"


def find_deployment(connection: Connection[Any]) -> str:
    """`dep_` and 12 hex digits. Raises psycopg.Error; UnavailableError where somebody has deleted it."""
    row = connection.execute(_FIND).fetchone()
    if row is None:
        raise UnavailableError(
            "the table deployment is empty: restore its row, or insert a new id and run go2hooks topics adopt"
        )
    return str(row[0])
