"""`/deliveries`: of all webhooks of the account, so that "where did this event go" is one call."""

from typing import Annotated, Final

from flask import Blueprint, Response
from psycopg import IsolationLevel
from pydantic import Field

from go2hooks.postgres import webhooks
from go2hooks.postgres.attempts import deliveries
from go2hooks.postgres.attempts.account_deliveries import AccountDelivery, AccountPage, Ids, account_page, page_by_id
from go2hooks.postgres.attempts.deliveries import DeliveryFilter, Place
from go2hooks.postgres.session import Session
from services.api.answers import success
from services.api.auth import require_account
from services.api.context import account_id, services
from services.api.cursors import Mark, read_cursor, write_cursor
from services.api.deliveries import DELIVERY_ID, DeliveriesQuery, shown
from services.api.operations import Returns, operation
from services.api.shapes.answers import CursorMeta
from services.api.shapes.deliveries import DeliveryOfAccount
from services.api.webhooks import WEBHOOK_ID, own_webhook

blueprint = Blueprint("account_deliveries", __name__, url_prefix="/api/v1/deliveries")
blueprint.before_request(require_account)

_MAX_ID_CHARS: Final = 200


class AccountDeliveriesQuery(DeliveriesQuery):
    """The same and ?webhook=&eventId=&deliveryId=."""

    webhook: Annotated[str, Field(pattern=f"^{WEBHOOK_ID.pattern}$")] | None = None
    """Those of this webhook."""
    event_id: Annotated[str, Field(min_length=1, max_length=_MAX_ID_CHARS)] | None = Field(None, alias="eventId")
    """Those of this event, which each webhook has one of at most."""
    delivery_id: Annotated[str, Field(min_length=1, max_length=_MAX_ID_CHARS)] | None = Field(None, alias="deliveryId")
    """The one with this id; an event that was accepted twice is two."""


@blueprint.get("")
@operation("What was sent to the account's webhooks", Returns(list[DeliveryOfAccount], meta=CursorMeta), errors=(404,))
def list_account_deliveries(query: AccountDeliveriesQuery) -> Response:
    """Newest first. `meta.nextCursor` continues where this page ended.

    A page reads a bounded part of the webhooks' history. It may therefore have fewer deliveries than `perPage`, or none,
    though there are more: go on while `meta.hasMore` is true.
    """
    name = f"{account_id()} {query.webhook} {query.event_id} {query.delivery_id}"
    below = None if query.cursor is None else Place(*read_cursor(query.cursor, name, DELIVERY_ID))
    with services().pool.transaction(IsolationLevel.REPEATABLE_READ) as conn:
        page = _page(conn, query, below)
        cursor = None if page.ended is None else write_cursor(name, Mark(*page.ended))
        meta: CursorMeta = {"perPage": query.per_page, "hasMore": cursor is not None, "nextCursor": cursor}
        names = webhooks.names(conn, account_id(), list({each.webhook_id for each in page.deliveries}))
        return success([_shown(each, names[each.webhook_id]) for each in page.deliveries], meta=meta)


def _page(conn: Session, query: AccountDeliveriesQuery, below: Place | None) -> AccountPage:
    wanted = DeliveryFilter(query.status, query.event, query.since, query.until)
    if query.webhook is not None:
        own_webhook(conn, query.webhook)
    ids = Ids(query.delivery_id, query.event_id)
    if ids != Ids():
        return page_by_id(conn, account_id(), ids, wanted, query.per_page, below, query.webhook)
    if query.webhook is not None:
        rows, ended = deliveries.page(conn, query.webhook, wanted, query.per_page, below)
        return AccountPage([AccountDelivery(query.webhook, row) for row in rows], ended)
    return account_page(conn, account_id(), wanted, query.per_page, below)


def _shown(each: AccountDelivery, webhook_name: str) -> DeliveryOfAccount:
    return {**shown(each.row), "webhookId": each.webhook_id, "webhookName": webhook_name}
