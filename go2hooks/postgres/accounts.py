"""SQL of `accounts`."""

from typing import Any

from psycopg import Connection


def add(conn: Connection[Any], account_id: str) -> None:
    """Insert it, unless it is there."""
    conn.execute("INSERT INTO accounts (id) VALUES (%s) ON CONFLICT DO NOTHING", [account_id])


def lock(conn: Connection[Any], account_id: str) -> None:
    """Until the transaction ends, nobody else changes what is counted per account.

    It is a statement of its own: the ones after it see what the lock has waited for.
    """
    conn.execute("SELECT 1 FROM accounts WHERE id = %s FOR NO KEY UPDATE", [account_id])
