"""SQL of `idempotent_answers`: the answers to POSTs with an Idempotency-Key, kept for a day.

The answer is written by the transaction that holds the key's lock and makes the change, where that is in Postgres.
So either both are there or neither is: a crash leaves no key that is neither free nor answered.
"""

from datetime import timedelta
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from psycopg import Connection
from psycopg.rows import class_row

KEPT: Final = timedelta(hours=24)

_FIND: Final = """SELECT request_hash, sealed_answer FROM idempotent_answers
    WHERE account_id = %s AND key = %s AND answered_at > now() - %s"""
_KEEP: Final = """INSERT INTO idempotent_answers (account_id, key, request_hash, sealed_answer) VALUES (%s, %s, %s, %s)
    ON CONFLICT (account_id, key) DO UPDATE SET request_hash = excluded.request_hash,
        sealed_answer = excluded.sealed_answer, answered_at = excluded.answered_at"""


class KeptAnswer(NamedTuple):
    """The request's hash, and the answer, encrypted."""

    request_hash: bytes
    sealed_answer: bytes


def bound_to(account_id: str, key: str) -> str:
    """What a sealed answer belongs to."""
    return f"{account_id}\0{key}"


def try_lock(conn: Connection[Any], account_id: str, key: str) -> bool:
    """Lock the key until the transaction ends. False, without waiting, when another request holds it."""
    number = int.from_bytes(blake2b(bound_to(account_id, key).encode(), digest_size=8).digest(), "big", signed=True)
    return conn.execute("SELECT pg_try_advisory_xact_lock(%s)", [number]).fetchone() == (True,)


def find(conn: Connection[Any], account_id: str, key: str) -> KeptAnswer | None:
    """The answer of the last 24 hours. The caller has locked the key before, so no other request is answering."""
    with conn.cursor(row_factory=class_row(KeptAnswer)) as cursor:
        return cursor.execute(_FIND, [account_id, key, KEPT]).fetchone()


def keep(conn: Connection[Any], account_id: str, key: str, answer: KeptAnswer) -> None:
    """Write the answer, in the caller's transaction; it replaces one that is older than a day."""
    conn.execute(_KEEP, [account_id, key, *answer])
