"""SQL of `sign_in_links`: tokens that each sign in to the dashboard once, within five minutes, as an API key.

What is stored, and looked up, is a token's SHA-256: neither the table nor the time that a look-up takes tells of a token.
"""

import secrets
from datetime import timedelta
from typing import Any, Final

from psycopg import Connection

from go2hooks.postgres.api_keys import hash_key

LIFETIME: Final = timedelta(minutes=5)


def make(conn: Connection[Any], key_id: str) -> str:
    """A new token, the only copy of it. Those that have expired are forgotten."""
    token = secrets.token_urlsafe(32)
    with conn.transaction():
        conn.execute("DELETE FROM sign_in_links WHERE expires_at <= now()")
        conn.execute(
            "INSERT INTO sign_in_links (token_hash, key_id, expires_at) VALUES (%s, %s, now() + %s)",
            [hash_key(token), key_id, LIFETIME],
        )
    return token


def use(conn: Connection[Any], token: str) -> str | None:
    """The key that the token stands for, which it does this once; None for one that is unknown, used or too old."""
    row = conn.execute(
        "DELETE FROM sign_in_links WHERE token_hash = %s AND expires_at > now() RETURNING key_id", [hash_key(token)]
    ).fetchone()
    return None if row is None else str(row[0])
