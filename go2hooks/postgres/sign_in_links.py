"""SQL of `sign_in_links`: tokens that sign in to the dashboard as an API key, once, within five minutes.

The SHA-256 of a token is stored and looked up: neither the table nor a look-up's time reveals a token.
"""

import secrets
from datetime import timedelta
from typing import Any, Final

from psycopg import Connection

from go2hooks.postgres.api_keys import hash_key

LIFETIME: Final = timedelta(minutes=5)


def make(conn: Connection[Any], key_id: str) -> str:
    """A new token, the only copy of it. Expired ones are deleted."""
    token = secrets.token_urlsafe(32)
    with conn.transaction():
        conn.execute("DELETE FROM sign_in_links WHERE expires_at <= now()")
        conn.execute(
            "INSERT INTO sign_in_links (token_hash, key_id, expires_at) VALUES (%s, %s, now() + %s)",
            [hash_key(token), key_id, LIFETIME],
        )
    return token


def use(conn: Connection[Any], token: str) -> str | None:
    """Delete the token and return its key's id; None for one that is unknown, used or too old."""
    row = conn.execute(
        "DELETE FROM sign_in_links WHERE token_hash = %s AND expires_at > now() RETURNING key_id", [hash_key(token)]
    ).fetchone()
    return None if row is None else str(row[0])
