"""Why Postgres fails: one sentence with the remedy, logged once per cause."""

import re
from typing import Final

import psycopg
import structlog
from psycopg import errors

log = structlog.get_logger(__name__)

#: Postgres answers but cannot be used as it is: migrations are missing, it is a standby, or we lack a privilege.
UNFIT: Final = (
    errors.UndefinedTable,
    errors.UndefinedColumn,
    errors.UndefinedFunction,
    errors.InvalidSchemaName,
    errors.InsufficientPrivilege,
    errors.ReadOnlySqlTransaction,
)
#: Errors about values that Postgres can never store: retrying would not help.
REFUSED: Final = (
    psycopg.DataError,
    psycopg.IntegrityError,
    errors.ProgramLimitExceeded,  # a key too long for its index; an OperationalError
    errors.StatementTooComplex,
    UnicodeError,
    ValueError,  # a time that no calendar has
    OverflowError,
)
GRANTS: Final = "go2hooks migrate --print-grants shows what each service needs"
_REMEDIES: Final[tuple[tuple[type[psycopg.Error], str], ...]] = (
    (errors.InsufficientPrivilege, GRANTS),
    (errors.InvalidSchemaName, "name a schema that exists in the URL's search_path, or create it"),
    (errors.UndefinedTable, "run go2hooks migrate, or name the tables' schema in the URL's search_path"),
    (errors.UndefinedColumn, "run go2hooks migrate"),
    (errors.UndefinedFunction, "run go2hooks migrate"),
)


def explain(error: BaseException) -> str:
    """The server's or libpq's message on one line, and the remedy. It never shows the values that were sent."""
    diagnosis = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    said = diagnosis or re.sub(r"\s+", " ", str(error)).strip() or type(error).__name__
    remedies = (remedy for kind, remedy in _REMEDIES if isinstance(error, kind))
    remedy = next(remedies, None)
    return said if remedy is None else f"{said}: {remedy}"


class Outage:
    """An outage of Postgres as one of its users sees it: each cause is logged once, and the end."""

    def __init__(self, user: str) -> None:
        self._user = user
        self._told: set[str] = set()
        self._wait_s = 0.05

    def tell(self, error: BaseException) -> float:
        """Log the error if it is new. Returns the seconds to wait before the next attempt: 0.05, doubled up to 1."""
        why = explain(error)
        if why not in self._told:
            self._told.add(why)
            is_unfit = not isinstance(error, psycopg.OperationalError)
            what = "Postgres does not do what is needed; waiting" if is_unfit else "Postgres is away; waiting"
            log.warning(what, user=self._user, error=type(error).__name__, why=why)
        wait_s, self._wait_s = self._wait_s, min(1.0, self._wait_s * 2)
        return wait_s

    def end(self) -> None:
        self._wait_s = 0.05
        if self._told:
            self._told.clear()
            log.info("Postgres is back", user=self._user)
