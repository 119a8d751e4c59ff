"""SQL of `client_certificates`, as the API asks it (always naming the account) and as the dispatchers do.

A webhook's row has the digest of its certificate: replicas hold the digest, and learn of a change by it.
"""

from datetime import datetime
from typing import Any, Final, NamedTuple

from psycopg import AsyncConnection, Connection
from psycopg.rows import class_row

NEEDS_HTTPS: Final = "webhooks_client_certificate_needs_https"  #: violated by a webhook with an http URL

_POINT_TO: Final = """UPDATE webhooks SET client_certificate = %(digest)s, updated_at = clock_timestamp()
    WHERE id = %(webhook_id)s AND account_id = %(account)s AND deleted_at IS NULL"""
_PUT: Final = """INSERT INTO client_certificates (webhook_id, digest, chain, sealed_key, not_after)
    VALUES (%(webhook_id)s, %(digest)s, %(chain)s, %(sealed_key)s, %(not_after)s)
    ON CONFLICT (webhook_id) DO UPDATE SET digest = excluded.digest, chain = excluded.chain,
        sealed_key = excluded.sealed_key, not_after = excluded.not_after, uploaded_at = now()"""
_REMOVE: Final = """WITH pointed AS (
        UPDATE webhooks SET client_certificate = NULL, updated_at = clock_timestamp()
        WHERE id = %(webhook_id)s AND account_id = %(account)s AND client_certificate IS NOT NULL RETURNING id)
    DELETE FROM client_certificates USING pointed WHERE webhook_id = pointed.id"""
_CHAIN: Final = """SELECT chain FROM client_certificates JOIN webhooks ON webhooks.id = webhook_id
    WHERE webhook_id = %(webhook_id)s AND account_id = %(account)s AND deleted_at IS NULL"""
_STORED: Final = (
    "SELECT webhook_id, digest, chain, sealed_key, not_after FROM client_certificates WHERE webhook_id = %s"
)


class StoredCertificate(NamedTuple):
    """A webhook's certificate, its key sealed."""

    webhook_id: str
    digest: bytes
    chain: str
    sealed_key: bytes
    not_after: datetime


def put(conn: Connection[Any], account_id: str, certificate: StoredCertificate) -> bool:
    """Add or replace it, in the caller's transaction. False when the account has no such webhook.

    Raises psycopg.errors.CheckViolation by NEEDS_HTTPS when the webhook's URL is not https.
    """
    values = certificate._asdict() | {"account": account_id}
    if not conn.execute(_POINT_TO, values).rowcount:
        return False
    conn.execute(_PUT, values)
    return True


def remove(conn: Connection[Any], account_id: str, webhook_id: str) -> bool:
    """False when there is none (any more)."""
    return conn.execute(_REMOVE, {"account": account_id, "webhook_id": webhook_id}).rowcount == 1


def forget(conn: Connection[Any], webhook_id: str) -> None:
    """Delete the certificate of a webhook that is gone."""
    conn.execute("DELETE FROM client_certificates WHERE webhook_id = %s", [webhook_id])


def digest_of(conn: Connection[Any], webhook_id: str) -> bytes | None:
    """The digest of the certificate of a webhook that the caller has locked; None when there is none."""
    row = conn.execute("SELECT client_certificate FROM webhooks WHERE id = %s", [webhook_id]).fetchone()
    return bytes(row[0]) if row and row[0] is not None else None


def chain_of(conn: Connection[Any], account_id: str, webhook_id: str) -> str | None:
    """The chain as PEM; None when there is none."""
    row = conn.execute(_CHAIN, {"account": account_id, "webhook_id": webhook_id}).fetchone()
    return None if row is None else str(row[0])


async def find_certificate(connection: AsyncConnection[Any], webhook_id: str) -> StoredCertificate | None:
    """A webhook's certificate as it is now."""
    async with connection.transaction(), connection.cursor(row_factory=class_row(StoredCertificate)) as cursor:
        return await (await cursor.execute(_STORED, [webhook_id])).fetchone()
