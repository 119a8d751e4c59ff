"""Why Postgres does not do what is asked: in one sentence, with the remedy where there is one, and once per cause."""

import re
from typing import Final

import psycopg
import structlog
from psycopg import errors

log = structlog.get_logger(__name__)

#: It answers, but is of no use as it is: behind on migrations, a standby, a full disk, without a right that we need.
UNFIT: Final = (
    errors.UndefinedTable,
    errors.UndefinedColumn,
    errors.UndefinedFunction,
    errors.InvalidSchemaName,
    errors.InsufficientPrivilege,
    errors.ReadOnlySqlTransaction,
)
#: What it says of values that it cannot keep, whoever sends them: to wait would change nothing.
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
    """The server's or libpq's own words on one line, and what to do; nothing of values that were sent."""
    diagnosis = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    said = diagnosis or re.sub(r"\s+", " ", str(error)).strip() or type(error).__name__
    remedies = (remedy for kind, remedy in _REMEDIES if isinstance(error, kind))
    remedy = next(remedies, None)
    return said if remedy is None else f"{said}: {remedy}"


class Outage:
    """What keeps a user of Postgres waiting: logged once per cause, until it is over."""

    def __init__(self, user: str) -> None:
        self._user = user
        self._told: set[str] = set()
        self._wait_s = 0.05

    def tell(self, error: BaseException) -> float:
        """Log the error, unless it was. Returns how long to wait before the next attempt: from 50 ms to a second."""
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
