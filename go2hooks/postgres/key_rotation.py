"""Seal every webhook's secrets, and the key of its client certificate, with the present key, while everything runs.

Rows are taken in the order of their ids, a batch at a time, each batch in a transaction of its own. What the present key
has sealed is left alone, so the work may be cut short and begun again. A secret that is rotated meanwhile wins: a row is
written only if it still holds what was read. A previous secret whose overlap is over is forgotten: nobody needs its key.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from psycopg import Connection

from go2hooks.core.errors import SealError
from go2hooks.postgres import audit
from go2hooks.postgres.audit import Action, Change, Changes, command_line
from go2hooks.postgres.idempotency import bound_to
from go2hooks.postgres.secrets import Purpose, SecretBox, sealed_by

_PAGE: Final = """SELECT id, account_id, sealed_secret, sealed_previous_secret, sealed_headers, sealed_key, (previous_secret_expires_at <= now()) IS TRUE
    FROM webhooks LEFT JOIN client_certificates ON webhook_id = id
    WHERE deleted_at IS NULL AND id > %s ORDER BY id LIMIT %s"""
# The webhook's trigger notifies the replicas. `updated_at` stays: the customer has changed nothing.
_REPLACE: Final = """UPDATE webhooks SET sealed_secret = %s, sealed_previous_secret = %s, sealed_headers = %s
    WHERE id = %s AND sealed_secret = %s AND sealed_previous_secret IS NOT DISTINCT FROM %s
          AND sealed_headers IS NOT DISTINCT FROM %s"""
_ANSWERS: Final = "SELECT account_id, key, sealed_answer FROM idempotent_answers ORDER BY account_id, key"
_REPLACE_ANSWER: Final = """UPDATE idempotent_answers SET sealed_answer = %s
    WHERE account_id = %s AND key = %s AND sealed_answer = %s"""
# Replicas are not notified: a dispatcher that has decrypted the key goes on using it.
_REPLACE_KEY: Final = "UPDATE client_certificates SET sealed_key = %s WHERE webhook_id = %s AND sealed_key = %s"

_SEALED: Final = (
    ("SELECT id, sealed_secret FROM webhooks WHERE deleted_at IS NULL ORDER BY id", Purpose.SIGNING),
    (
        "SELECT id, sealed_headers FROM webhooks WHERE deleted_at IS NULL AND sealed_headers IS NOT NULL ORDER BY id",
        Purpose.HEADERS,
    ),
    ("SELECT webhook_id, sealed_key FROM client_certificates ORDER BY webhook_id", Purpose.CLIENT_KEY),
)


class _Row(NamedTuple):
    webhook_id: str
    account_id: str
    secret: bytes
    previous: bytes | None
    headers: bytes | None
    client_key: bytes | None
    is_overlap_over: bool  #: the previous secret does not sign any more

    def is_current(self, box: SecretBox) -> bool:
        return self.older_key(box) is None

    def older_key(self, box: SecretBox) -> str | None:
        """The id of a key other than the present one that sealed some of it; None when there is none."""
        sealed = (self.secret, self.previous, self.headers, self.client_key)
        return next((sealed_by(each) for each in sealed if each is not None and not box.is_current(each)), None)


@dataclass(slots=True)
class Resealing:
    """The result of a pass over all webhooks."""

    current: int = 0  #: sealed with the present key before
    resealed: int = 0
    changed: int = (
        0  #: their secret or certificate was changed, or they were deleted, meanwhile: begin again to be sure of them
    )
    shut: list[str] = field(default_factory=list)  #: ids of those that no key opens

    @property
    def is_complete(self) -> bool:
        """Whether nothing needs the older keys any more."""
        return not self.changed and not self.shut


def all_sealed(conn: Connection[Any]) -> list[tuple[str, bytes, Purpose]]:
    """Every webhook's present secret, secret headers and client key, each with the webhook's id."""
    return [(*row, purpose) for query, purpose in _SEALED for row in conn.execute(query)]


def reseal_all(conn: Connection[Any], box: SecretBox, batch: int = 500) -> Resealing:
    """Go over all webhooks once. Locks at most `batch` rows, for milliseconds. Raises psycopg.Error."""
    done = Resealing()
    for rows in _pages(conn, batch):
        with conn.transaction():
            for row in rows:
                _reseal(conn, box, row, done)
    _reseal_answers(conn, box)
    return done


def _reseal_answers(conn: Connection[Any], box: SecretBox) -> None:
    """Re-encrypt kept answers. One that no key opens is left: it is deleted within a day."""
    with conn.transaction():
        for account_id, key, sealed in conn.execute(_ANSWERS).fetchall():
            try:
                resealed = _sealed_anew(box, sealed, bound_to(account_id, key), Purpose.ANSWER)
            except SealError:
                continue
            if resealed != sealed:
                conn.execute(_REPLACE_ANSWER, [resealed, account_id, key, sealed])


def _pages(conn: Connection[Any], batch: int) -> Iterator[list[_Row]]:
    after = ""
    while rows := _page(conn, after, batch):
        yield rows
        after = rows[-1].webhook_id


def _page(conn: Connection[Any], after: str, batch: int) -> list[_Row]:
    with conn.transaction():
        return [_Row(*row) for row in conn.execute(_PAGE, [after, batch])]


def _reseal(conn: Connection[Any], box: SecretBox, row: _Row, done: Resealing) -> None:
    if row.is_current(box):
        done.current += 1
        return
    try:
        secret = _sealed_anew(box, row.secret, row.webhook_id)
        previous = None
        if row.previous is not None and not row.is_overlap_over:
            previous = _sealed_anew(box, row.previous, row.webhook_id)
        headers = None if row.headers is None else _sealed_anew(box, row.headers, row.webhook_id, Purpose.HEADERS)
        key = None if row.client_key is None else _sealed_anew(box, row.client_key, row.webhook_id, Purpose.CLIENT_KEY)
    except SealError:
        done.shut.append(row.webhook_id)
        return
    before = [row.webhook_id, row.secret, row.previous, row.headers]
    is_written = conn.execute(_REPLACE, [secret, previous, headers, *before]).rowcount == 1
    if key is not None:
        is_written &= conn.execute(_REPLACE_KEY, [key, row.webhook_id, row.client_key]).rowcount == 1
    if is_written:
        done.resealed += 1
        changes: Changes = {"encryptionKey": {"from": row.older_key(box), "to": sealed_by(secret)}}
        audit.record(conn, command_line(), Change(row.account_id, Action.SECRET_RESEALED, changes, row.webhook_id))
    else:
        done.changed += 1


def _sealed_anew(box: SecretBox, sealed: bytes, webhook_id: str, purpose: Purpose = Purpose.SIGNING) -> bytes:
    return (
        bytes(sealed)
        if box.is_current(sealed)
        else box.seal(box.open(sealed, webhook_id, purpose), webhook_id, purpose)
    )
