"""`/audit` and `/webhooks/{id}/audit`: who changed what."""

import re
from typing import Annotated, Final

from flask import Blueprint, Response
from pydantic import Field

from go2hooks.postgres import audit
from go2hooks.postgres.audit import AuditRow
from go2hooks.postgres.session import Session
from services.api.answers import iso, success
from services.api.bodies import Query
from services.api.context import account_id, services
from services.api.cursors import Mark, read_cursor, write_cursor
from services.api.operations import Returns, operation
from services.api.shapes.answers import CursorMeta
from services.api.shapes.audit import AuditEntry
from services.api.webhooks import URL_PREFIX, WEBHOOK_ID, admit, own_webhook

blueprint = Blueprint("audit", __name__, url_prefix="/api/v1")
blueprint.before_request(admit)

_ENTRY_ID: Final = re.compile(r"[1-9][0-9]{0,17}")
_WEBHOOKS: Final = URL_PREFIX.removeprefix("/api/v1")


class AuditPageQuery(Query):
    """Query string: ?cursor=&perPage=, both optional."""

    cursor: str | None = None
    """`meta.nextCursor` of the page before."""
    per_page: int = Field(20, ge=1, le=100, alias="perPage")
    """Entries on a page."""


class AuditQuery(AuditPageQuery):
    """The same and ?webhook=: one that was deleted, too."""

    webhook: Annotated[str, Field(pattern=f"^{WEBHOOK_ID.pattern}$")] | None = None
    """Only changes of this webhook."""


@blueprint.get("/audit")
@operation("Who changed what in the account", Returns(list[AuditEntry], meta=CursorMeta))
def list_audit(query: AuditQuery) -> Response:
    """Changes of webhooks and API keys, newest first; with `webhook`, of that one alone, even if it was deleted.

    `meta.nextCursor` continues where this page ended.
    """
    with services().pool.transaction() as conn:
        return _page(conn, query.webhook, query)


@blueprint.get(f"{_WEBHOOKS}/<webhook_id>/audit")
@operation("Who changed what of a webhook", Returns(list[AuditEntry], meta=CursorMeta))
def list_webhook_audit(webhook_id: str, query: AuditPageQuery) -> Response:
    """Newest first. `meta.nextCursor` continues where this page ended."""
    with services().pool.transaction() as conn:
        own_webhook(conn, webhook_id)
        return _page(conn, webhook_id, query)


def _page(conn: Session, webhook_id: str | None, query: AuditPageQuery) -> Response:
    name = f"audit.{webhook_id or account_id()}"
    mark = None if query.cursor is None else read_cursor(query.cursor, name, _ENTRY_ID)
    below = None if mark is None else (mark.at, int(mark.id))
    rows = audit.page(conn, account_id(), webhook_id, query.per_page + 1, below)
    page, has_more = rows[: query.per_page], len(rows) > query.per_page
    cursor = write_cursor(name, Mark(page[-1].at, str(page[-1].id))) if has_more else None
    meta: CursorMeta = {"perPage": query.per_page, "hasMore": has_more, "nextCursor": cursor}
    return success([_shown(row) for row in page], meta=meta)


def _shown(row: AuditRow) -> AuditEntry:
    return {
        "at": iso(row.at),
        "actor": {"type": row.actor_type, "id": row.actor_id},
        "action": row.action,
        "webhookId": row.webhook_id,
        "changes": row.changes,
        "address": row.address,
    }
