"""From an empty database to the newest version."""

import secrets
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg import sql

from go2hooks.core.errors import UnavailableError
from go2hooks.postgres.migrate import migrate, pending_migrations


@pytest.fixture
def empty_database_url(postgres_url):
    """URL of a database with nothing in it."""
    name = sql.Identifier(database := f"empty_{secrets.token_hex(6)}")
    with psycopg.connect(postgres_url("postgres"), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(name))
        yield postgres_url(database)
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def test_an_empty_database_gets_every_table_and_a_second_run_changes_nothing(empty_database_url):
    assert pending_migrations(empty_database_url) == (
        "0001",
        "0002",
        "0003",
        "0004",
        "0005",
        "0006",
        "0007",
        "0008",
        "0011",
        "0009",
        "0012",
        "0013",
    )
    migrate(empty_database_url)
    migrate(empty_database_url)
    assert pending_migrations(empty_database_url) == ()
    with psycopg.connect(empty_database_url) as connection:
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relname !~ '^(pg|sql)_'"
        )
        assert {"accounts", "api_keys", "webhooks", "attempts", "attempts_default"} <= {name for (name,) in tables}


def test_starters_that_migrate_at_the_same_time_do_not_clash(empty_database_url):
    with ThreadPoolExecutor(5) as starters:
        list(starters.map(migrate, [empty_database_url] * 5))
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0013",)]


def test_a_migration_that_fails_leaves_nothing_behind(empty_database_url):
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE attempts_default (in_the_way text)")
        with pytest.raises(Exception, match="attempts_default"):
            migrate(empty_database_url)
        assert connection.execute("SELECT to_regclass('webhooks'), to_regclass('alembic_version')").fetchone() == (
            None,
            None,
        )


def test_a_postgres_that_is_away_is_named_as_such_without_the_password():
    with pytest.raises(UnavailableError, match="Postgres does not answer") as raised:
        migrate("postgresql://go2:hunter22@127.0.0.1:1/go2hooks")
    assert "hunter22" not in str(raised.value)
