"""`/webhooks`: list, create, read, change, delete, rotate the secret."""

import re
import secrets
import string
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any, Final

from flask import Blueprint, Response, request, url_for
from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
)

from go2hooks.core.domain.event import SUBSCRIBABLE
from go2hooks.core.errors import TargetError
from go2hooks.core.security.signing import SECRET_BYTES, generate_secret
from go2hooks.core.security.target import MAX_URL_CHARS, check_target
from go2hooks.postgres import rollups, webhooks
from go2hooks.postgres.audit import Action, Changes, fingerprint
from go2hooks.postgres.session import Session
from go2hooks.postgres.webhooks import NewWebhook, WebhookChange, WebhookFilter, WebhookRow
from go2hooks.settings import Settings
from services.api import series
from services.api.answers import iso, success
from services.api.auth import require_account
from services.api.bodies import Body, Query, one_of
from services.api.changes import fingerprint_of, record, record_creation, record_deletion, record_edit
from services.api.context import account_id, services, transaction
from services.api.errors import ApiError, webhook_not_found
from services.api.etags import check_if_match, etag_of, unless_known
from services.api.operations import Returns, operation
from services.api.patches import Patch
from services.api.shapes.answers import PageMeta
from services.api.shapes.fields import INCLUDED, Included, Subscribed, WebhookSort, WebhookState
from services.api.shapes.webhooks import DeletedWebhook, RotatedWebhook, Webhook, WebhookInList, WebhookWithSecret
from services.api.webhook_settings import BOUNDS, SettingsBody, apply_settings, shown_settings, told_headers

URL_PREFIX: Final = "/api/v1/webhooks"
WEBHOOK_ID: Final = re.compile(r"wh_[0-9A-Za-z]{1,64}")
_ID_ALPHABET: Final = string.digits + string.ascii_letters
_MAX_SEARCH_CHARS: Final = 100
_CONTROLS: Final = r"\x00-\x1f\x7f-\x9f"
_CONTROL: Final = re.compile(f"[{_CONTROLS}]")
#: `_check_name` as a pattern: no control character, and at least one character that is no space.
_NAME_PATTERN: Final = rf"^[^{_CONTROLS}]*[^\s{_CONTROLS}][^{_CONTROLS}]*$"


def admit() -> None:
    """Before each request: check the key, then the id's form. An id of another form is not found."""
    require_account()
    webhook_id = (request.view_args or {}).get("webhook_id")
    if webhook_id is not None and not WEBHOOK_ID.fullmatch(webhook_id):
        raise webhook_not_found()


blueprint = Blueprint("webhooks", __name__, url_prefix=URL_PREFIX)
blueprint.before_request(admit)


# --- what a caller may send


def _check_name(name: str) -> str:
    if _CONTROL.search(name):
        raise ValueError("must not contain control characters")
    if len(name) > BOUNDS.name_chars or not name.strip():
        raise ValueError(f"must have 1 to {BOUNDS.name_chars} characters")
    return name.strip()


def _check_url(url: str, info: ValidationInfo) -> str:
    settings: Settings = info.context  # type: ignore[assignment]  # `read_body` hands it over
    try:
        check_target(url, settings.address_policy(), settings.target_deny_ports)
    except TargetError as error:
        raise ValueError(str(error)) from None
    return url


def _check_events(events: list[str]) -> list[str]:
    if not events:
        raise ValueError(f"must name at least one of {', '.join(SUBSCRIBABLE)}")
    if len(events) > BOUNDS.events:
        raise ValueError(f"must not name more than {BOUNDS.events} events")
    unknown = [name for name in dict.fromkeys(events) if name not in SUBSCRIBABLE]
    if unknown:
        shown = ", ".join(repr(name[:50]) for name in unknown)
        raise ValueError(f"unknown: {shown}; known are {', '.join(SUBSCRIBABLE)}")
    if len(set(events)) != len(events):
        raise ValueError("must not name an event twice")
    return events


def _check_search(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("must not contain control characters")
    return text


# Far above what the checks allow: it bounds the work of what follows.
_Text = Annotated[str, StringConstraints(max_length=65536)]
Name = Annotated[
    _Text,
    AfterValidator(_check_name),
    WithJsonSchema({"type": "string", "maxLength": BOUNDS.name_chars, "pattern": _NAME_PATTERN}),
]
Url = Annotated[
    _Text,
    AfterValidator(_check_url),
    WithJsonSchema({"type": "string", "maxLength": MAX_URL_CHARS, "format": "uri"}),
]
Events = Annotated[
    list[Subscribed],
    AfterValidator(_check_events),
    Field(json_schema_extra={"minItems": 1, "maxItems": BOUNDS.events, "uniqueItems": True}),
]
Search = Annotated[
    str,
    Field(max_length=_MAX_SEARCH_CHARS),
    AfterValidator(_check_search),
    WithJsonSchema({"type": "string", "maxLength": _MAX_SEARCH_CHARS, "pattern": f"^[^{_CONTROLS}]*$"}),
]


class CreateBody(SettingsBody):
    """POST /webhooks."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "Click Tracker",
                    "url": "https://example.com/webhooks/go2",
                    "events": ["click", "link.created"],
                }
            ]
        }
    )
    name: Name
    """What you call it: 1 to 200 characters."""
    url: Url
    """Where deliveries are posted to: https, to a public host, without a user name, at a port that is not another protocol's."""
    events: Events
    """The event types that it gets; `*` for all, those added later included."""


class ChangeBody(SettingsBody, Patch):
    """PATCH /webhooks/{id}: any of them; null removes a setting, and no other field may be null.

    What else a webhook shows may be sent back unchanged.
    """

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "examples": [{"isActive": True}]})
    shows = frozenset(RotatedWebhook.__annotations__)
    name: Name = ""
    """What you call it: 1 to 200 characters."""
    url: Url = ""
    """Where deliveries are posted to from now on, retries included."""
    events: Events = Field(default_factory=list)
    """The event types that it gets from now on; `*` for all."""
    is_active: bool = Field(default=True, alias="isActive")
    """`true` enables it again and forgets its failures; `false` disables it."""


class NoBody(Body):
    """Nothing to say."""

    may_be_missing = True


class PageQuery(Query):
    """Query string: ?page=&perPage=, both optional."""

    page: int = Field(1, ge=1, le=100_000)
    """Which page, from 1."""
    per_page: int = Field(20, ge=1, le=100, alias="perPage")
    """How many items a page has at most."""


class WebhooksQuery(PageQuery):
    """Query string: ?search=&event=&state=&sort=&include= as well, all optional."""

    search: Search | None = None
    """Those with this in name, URL or id, whatever its case."""
    event: Annotated[Subscribed, one_of(SUBSCRIBABLE)] | None = None
    """Those that get this event type, be it by `*`."""
    state: Annotated[WebhookState, one_of(webhooks.STATES)] | None = None
    """Those in this state; `failing` ones are active, and have failed since their last success."""
    sort: Annotated[WebhookSort, one_of(webhooks.SORTS)] = "createdAt"
    """Their order; descending with `-`."""
    include: Annotated[Included, one_of(INCLUDED)] | None = None
    """`stats`: with each webhook's statistics of the last 24 hours."""


# --- what it gets


def shown(webhook: WebhookRow) -> Webhook:
    return {
        "id": webhook.id,
        "name": webhook.name,
        "url": webhook.url,
        "events": webhook.events,
        "isActive": webhook.is_active,
        "consecutiveFailures": webhook.consecutive_failures,
        "disabledAt": iso(webhook.disabled_at),
        "disabledReason": webhook.disabled_reason,
        **shown_settings(webhook),
        "createdAt": iso(webhook.created_at),
        "updatedAt": iso(webhook.updated_at),
    }


def shown_with_secret(webhook: WebhookRow, secret: str) -> WebhookWithSecret:
    """The webhook with its secret, in the page's order of fields. No other function returns a secret."""
    fields = shown(webhook)
    return {
        "id": fields["id"],
        "name": fields["name"],
        "url": fields["url"],
        "events": fields["events"],
        "secret": secret,
        **fields,
    }


# --- the endpoints: answers are rendered before the commit, so that no committed change is answered with 500


@blueprint.get("")
@operation("The account's webhooks", Returns(list[WebhookInList], meta=PageMeta))
def list_webhooks(query: WebhooksQuery) -> Response:
    """`search` is looked for in name, URL and id, in any case. `event` finds those that subscribe to it by name or by `*`.

    Of those that are `active`, the `failing` ones have failed since they last succeeded. `sort` begins with `-` for the
    other direction. `include=stats` adds to each what `GET /webhooks/{id}/stats` tells, of the last 24 hours by the hour.
    """
    wanted, offset = WebhookFilter(query.search, query.event, query.state), (query.page - 1) * query.per_page
    with services().pool.transaction() as conn:
        total = webhooks.count(conn, account_id(), wanted)
        rows = webhooks.page(conn, account_id(), wanted, query.sort, query.per_page, offset)
        meta: PageMeta = {
            "page": query.page,
            "perPage": query.per_page,
            "total": total,
            "hasMore": query.page * query.per_page < total,
        }
        listed = _with_stats(conn, rows) if query.include == "stats" else [shown(row) for row in rows]
        return success(listed, meta=meta)


@blueprint.post("")
@operation("Create a webhook", Returns(WebhookWithSecret, 201, has_location=True, has_etag=True), errors=(409,))
def create_webhook(body: CreateBody) -> Response:
    """The answer shows the secret, this once."""
    settings = services().settings
    webhook_id, secret = _new_id(), _new_secret()
    sealed = services().secret_box.seal(secret, webhook_id)
    new = NewWebhook(webhook_id, account_id(), body.name, body.url, body.events, sealed)
    location = url_for("webhooks.get_webhook", webhook_id=webhook_id)
    with transaction() as conn:
        row = webhooks.create(conn, new, settings.webhooks_per_account)
        if row is None:
            limit = settings.webhooks_per_account
            message = f"Your account has {limit} webhooks already, which is the limit."
            raise ApiError(409, "webhook_limit_reached", message)
        row = apply_settings(conn, row, body, account_id())
        record_creation(conn, webhook_id, _told(conn, row))
        return success(shown_with_secret(row, secret), 201, location=location, etag=_etag(row))


@blueprint.get("/<webhook_id>")
@operation("A webhook", Returns(Webhook, has_etag=True))
def get_webhook(webhook_id: str) -> Response:
    """As it is now, without its secret."""
    with services().pool.transaction() as conn:
        row = own_webhook(conn, webhook_id)
        return unless_known(success(shown(row), etag=_etag(row)))


@blueprint.patch("/<webhook_id>")
@operation("Change a webhook", Returns(Webhook, has_etag=True), errors=(409, 412))
def change_webhook(webhook_id: str, body: ChangeBody) -> Response:
    """`isActive: true` enables it again, and forgets its failures."""
    wanted = WebhookChange(**body.model_dump(exclude_unset=True, include=set(WebhookChange._fields)))
    with transaction() as conn:
        row = _wanted_webhook(conn, webhook_id)
        body.check_read_only(shown(row))
        before = _told(conn, row)
        row = _found(webhooks.change(conn, account_id(), webhook_id, wanted))
        row = apply_settings(conn, row, body, account_id())
        record_edit(conn, webhook_id, before, _told(conn, row))
        return success(shown(row), etag=_etag(row))


@blueprint.delete("/<webhook_id>")
@operation("Delete a webhook", Returns(DeletedWebhook), errors=(412,))
def delete_webhook(webhook_id: str) -> Response:
    """Deliveries still under way are dropped, and recorded as such."""
    deleted: DeletedWebhook = {"id": webhook_id, "deleted": True}
    with transaction() as conn:
        before = _wanted_webhook(conn, webhook_id)
        webhooks.delete(conn, account_id(), webhook_id)
        record_deletion(conn, webhook_id, shown(before))
        return success(deleted)


@blueprint.post("/<webhook_id>/rotate-secret")
@operation("A new signing secret", Returns(RotatedWebhook, has_etag=True), errors=(412,))
def rotate_secret(webhook_id: str, body: NoBody) -> Response:  # noqa: ARG001  # read, to refuse what it holds
    """A new secret, shown once. The old one signs too until `previousSecretExpiresAt`.

    A second rotation within the overlap replaces the previous secret: the oldest stops signing at once.
    """
    secret = _new_secret()
    sealed = services().secret_box.seal(secret, webhook_id)
    overlap = timedelta(seconds=services().settings.secret_overlap_s)
    with transaction() as conn:
        _wanted_webhook(conn, webhook_id)
        replaced = fingerprint_of(webhooks.sealed_secret(conn, webhook_id), webhook_id)
        row = _found(webhooks.rotate_secret(conn, account_id(), webhook_id, sealed, overlap))
        changed: Changes = {"secret": {"from": replaced, "to": fingerprint(secret)}}
        record(conn, Action.SECRET_ROTATED, webhook_id, changed)
        expires = iso(row.previous_secret_expires_at)
        rotated: RotatedWebhook = {**shown_with_secret(row, secret), "previousSecretExpiresAt": expires}
        return success(rotated, etag=_etag(row))


def _with_stats(conn: Session, rows: Sequence[WebhookRow]) -> list[WebhookInList]:
    span = series.last_day()
    found = rollups.series(conn, [row.id for row in rows], span)
    return [{**shown(row), "stats": series.told(found[row.id], span)} for row in rows]


def _told(conn: Session, webhook: WebhookRow) -> dict[str, Any]:
    """The webhook for the audit log."""
    settings = {"metadata": webhook.metadata, "headers": told_headers(conn, webhook, account_id()) or None}
    return {**shown(webhook), **settings}


def own_webhook(conn: Session, webhook_id: str) -> WebhookRow:
    """The account's webhook. Raises ApiError 404."""
    return _found(webhooks.find(conn, account_id(), webhook_id))


def locked_webhook(conn: Session, webhook_id: str) -> WebhookRow:
    """The account's webhook, locked until the transaction ends. Raises ApiError 404."""
    return _found(webhooks.lock(conn, account_id(), webhook_id))


def _wanted_webhook(conn: Session, webhook_id: str) -> WebhookRow:
    """The same; its version must be the one of If-Match, if there is one. Raises ApiError 404 and 412."""
    row = locked_webhook(conn, webhook_id)
    check_if_match(_etag(row))
    return row


def _etag(row: WebhookRow) -> str:
    return etag_of(shown(row), row.updated_at)


def _found(row: WebhookRow | None) -> WebhookRow:
    if row is None:
        raise webhook_not_found()
    return row


def _new_id() -> str:
    return "wh_" + "".join(secrets.choice(_ID_ALPHABET) for _ in range(22))  # 131 bits


def _new_secret() -> str:
    return generate_secret(secrets.token_bytes(SECRET_BYTES))
