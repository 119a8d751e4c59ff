"""Migrate a database to the newest version, by Alembic; its configuration is built in code."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from go2hooks.core.errors import UnavailableError
from go2hooks.postgres.away import UNFIT, explain
from go2hooks.postgres.locks import Lock
from go2hooks.postgres.session import Session


def migrate(database_url: str) -> None:
    """Apply every missing migration, all or none. Blocks while another process migrates the same database.

    Raises UnavailableError when Postgres does not answer.
    """
    try:
        with _begin(database_url) as connection:
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (Lock.MIGRATION,))
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except (DBAPIError, psycopg.Error) as error:
        raise _explained(error) from error


def pending_migrations(database_url: str) -> tuple[str, ...]:
    """Versions that `migrate` would apply, oldest first. Raises UnavailableError when Postgres does not answer."""
    try:
        with _begin(database_url) as connection:
            applied = _applied(connection)
    except (DBAPIError, psycopg.Error) as error:
        raise _explained(error) from error
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


@contextmanager
def _begin(database_url: str) -> Iterator[Connection]:
    """A transaction. libpq parses the URL, since it knows more forms than SQLAlchemy."""
    with closing(Session.connect(database_url, name="migrate", statement_timeout_s=0, autocommit=False)) as session:
        engine = create_engine("postgresql+psycopg://", creator=lambda: session, poolclass=NullPool)
        with engine.begin() as connection:
            connection.exec_driver_sql(session.relied_on, execution_options={"no_parameters": True})
            yield connection


def _explained(error: DBAPIError | psycopg.Error) -> Exception:
    """One sentence for what an operator can correct; any other error is a bug of ours and passes."""
    why = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(why, UNFIT):
        return UnavailableError(explain(why))
    return (
        UnavailableError(f"Postgres does not answer: {explain(why)}")
        if isinstance(why, psycopg.OperationalError)
        else error
    )
