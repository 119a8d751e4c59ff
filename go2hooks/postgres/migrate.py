"""Bring a database to the newest version: Alembic without its files on the user's side."""

from pathlib import Path
from typing import Any, Final

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from go2hooks.core.errors import UnavailableError

_LOCK: Final = 0x60_2A66  # names the advisory lock under which one starter migrates and the others wait
_CONNECT_TIMEOUT_S: Final = 5


def migrate(database_url: str) -> None:
    """Apply every missing migration, all or none. Blocks while another process migrates the same database.

    Raises UnavailableError when Postgres does not answer.
    """
    try:
        with _engine(database_url).begin() as connection:
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except OperationalError as error:
        raise UnavailableError(f"Postgres does not answer: {error.orig}") from error


def pending_migrations(database_url: str) -> tuple[str, ...]:
    """Versions that `migrate` would apply, oldest first. Raises UnavailableError when Postgres does not answer."""
    try:
        with _engine(database_url).connect() as connection:
            applied = _applied(connection)
    except OperationalError as error:
        raise UnavailableError(f"Postgres does not answer: {error.orig}") from error
    script = ScriptDirectory.from_config(_config())
    revisions = script.iterate_revisions("head", applied or "base")
    return tuple(revision.revision for revision in reversed(list(revisions)))


def _applied(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _config() -> Config:
    config = Config()
    location = Path(__file__).parent / "migrations"
    config.set_main_option("script_location", str(location).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _engine(database_url: str) -> Engine:
    """An engine that leaves the URL to libpq, which knows more of them than SQLAlchemy."""

    def connect() -> psycopg.Connection[Any]:
        return psycopg.connect(database_url, connect_timeout=_CONNECT_TIMEOUT_S, application_name="go2hooks-migrate")

    return create_engine("postgresql+psycopg://", creator=connect, poolclass=NullPool)
