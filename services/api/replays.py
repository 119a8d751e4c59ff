"""`/webhooks/{id}/replays`: send again to one webhook what lies in the log. The replayer does it; here it is asked for."""

import re
import secrets
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from flask import Blueprint, Response, request, url_for
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, WithJsonSchema

from go2hooks.core.domain.event import SUBSCRIBABLE, WILDCARD
from go2hooks.core.domain.replay import FROM_RECORDS, Selection, is_wanted
from go2hooks.postgres import accounts, replays
from go2hooks.postgres.attempts import replayable
from go2hooks.postgres.attempts.replayable import Matching
from go2hooks.postgres.audit import Action, differences
from go2hooks.postgres.replays import NewReplay, ReplayRow
from go2hooks.postgres.webhooks import WebhookRow
from services.api.answers import iso, success
from services.api.bodies import Body, Query
from services.api.changes import record
from services.api.context import account_id, services, transaction
from services.api.deliveries import Time, read_time
from services.api.errors import ApiError, invalid
from services.api.operations import Returns, operation
from services.api.sending import place_at_kafka
from services.api.shapes.answers import PageMeta
from services.api.shapes.fields import Selected
from services.api.shapes.replays import Replay, ReplayEstimate
from services.api.webhooks import URL_PREFIX, Events, PageQuery, admit, own_webhook

REPLAY_ID: Final = re.compile(r"rpl_[0-9a-f]{24}")

blueprint = Blueprint("replays", __name__, url_prefix=URL_PREFIX)


@blueprint.before_request
def _admit() -> None:
    admit()
    replay_id = (request.view_args or {}).get("replay_id")
    if replay_id is not None and not REPLAY_ID.fullmatch(replay_id):
        raise _not_found()


def _read_moment(value: Any) -> datetime:
    if not isinstance(value, str):
        raise ValueError("must be a string")  # noqa: TRY004  # a TypeError would be a defect of ours, says pydantic
    return read_time(value)


def _known(only: str) -> str:
    if only not in tuple(Selection):
        raise ValueError(f"must be one of {', '.join(Selection)}")
    return only


Moment = Annotated[datetime, BeforeValidator(_read_moment)]


class ReplayBody(Body):
    """POST …/replays: which deliveries, of which time."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"from": "2024-01-01T00:00:00Z", "only": "missed", "events": ["click"]}]}
    )
    from_: Moment = Field(alias="from")
    """Events that Kafka accepted at this time or later."""
    to: Moment | None = None
    """Events that Kafka accepted before this time; by default, now."""
    events: Events | None = None
    """Of these types alone, each of which the webhook subscribes to."""
    only: Annotated[Selected, AfterValidator(_known)]
    """`failed`: what has used up its retries. `skipped`: what came while the webhook was disabled. `missed`: what it would get today, and
    there is no delivery of. `all`: all of these, and what was delivered."""


_NAME: Final = "|".join(map(re.escape, SUBSCRIBABLE))
_NAMES: Final = f"^({_NAME})(,({_NAME}))*$"


def _read_events(text: Any) -> Any:
    return text.split(",") if isinstance(text, str) else text


class EstimateQuery(Query):
    """Query string: ?from=&to=&events=&only=, as in the body of POST …/replays."""

    from_: Time = Field(alias="from")
    """Events that Kafka accepted at this time or later."""
    to: Time | None = None
    """Events that Kafka accepted before this time; by default, now."""
    events: (
        Annotated[Events, BeforeValidator(_read_events), WithJsonSchema({"type": "string", "pattern": _NAMES})] | None
    ) = None
    """Of these types alone, with commas between them."""
    only: Annotated[Selected, AfterValidator(_known)]
    """As `only` of a replay."""


@blueprint.post("/<webhook_id>/replays")
@operation("Send again what lies in the log", Returns(Replay, 202, has_location=True), errors=(409,))
def start_replay(webhook_id: str, body: ReplayBody) -> Response:
    """`failed`: deliveries that have used up their retries; `skipped`: those that came while the webhook was disabled; `missed`: events
    that the webhook would get today and has no delivery of, such as those from before it was created; `all`: everything that lies
    in the log, delivered or not. Deliveries keep their ids, attempt numbers go on, and the whole retry schedule begins anew.
    """
    new = NewReplay(_new_id(), webhook_id, account_id(), body.from_, _end(body), body.events, body.only)
    location = url_for("replays.get_replay", webhook_id=webhook_id, replay_id=new.id)
    with transaction() as conn:
        accounts.lock(conn, account_id())
        _check(own_webhook(conn, webhook_id), body)
        _check_running(replays.running(conn, account_id()), webhook_id)
        created = shown(replays.create(conn, new))
        told = {name: created[name] for name in ("id", "only", "from", "to", "events")}
        record(conn, Action.REPLAY_STARTED, webhook_id, differences({}, told))
        return success(created, 202, location=location)


@blueprint.get("/<webhook_id>/replays")
@operation("A webhook's replays", Returns(list[Replay], meta=PageMeta))
def list_replays(webhook_id: str, query: PageQuery) -> Response:
    """Newest first."""
    with services().pool.transaction() as conn:
        own_webhook(conn, webhook_id)
        total = replays.count(conn, account_id(), webhook_id)
        offset = (query.page - 1) * query.per_page
        rows = replays.page(conn, account_id(), webhook_id, query.per_page, offset)
        has_more = offset + query.per_page < total
        meta: PageMeta = {"page": query.page, "perPage": query.per_page, "total": total, "hasMore": has_more}
        return success([shown(row) for row in rows], meta=meta)


@blueprint.get("/<webhook_id>/replay-estimate")
@operation("How much a replay would send", Returns(ReplayEstimate))
def estimate_replay(webhook_id: str, query: EstimateQuery) -> Response:
    """Begins nothing. It tells of a disabled webhook, too.

    For `failed` and `skipped` the records say how many match. For `missed` and `all` only the log can: so many messages lie in
    its range, of which the replay would look at each.
    """
    end = _end(query)
    with services().pool.transaction() as conn:
        webhook = own_webhook(conn, webhook_id)
        _check_subscribed(webhook, query.events)
        events = [name for name in SUBSCRIBABLE if is_wanted(name, webhook.events, query.events)]
        found = None
        if query.only in FROM_RECORDS:
            found = replayable.matching(conn, webhook_id, query.only, events, query.from_, end)
    if found is None:
        with place_at_kafka():
            count = services().payload_reader.count_events(account_id(), events, query.from_, end)
        found = Matching(count, None if count else 0)
    estimate: ReplayEstimate = {
        "from": iso(query.from_),
        "to": iso(end),
        "only": query.only,
        "matched": found.matched,
        "toLookThrough": found.records,
    }
    return success(estimate)


@blueprint.get("/<webhook_id>/replays/<replay_id>")
@operation("How far a replay has come", Returns(Replay))
def get_replay(webhook_id: str, replay_id: str) -> Response:
    """It is `done` once every delivery that was sent is delivered, or has used up its retries."""
    with services().pool.transaction() as conn:
        own_webhook(conn, webhook_id)
        return success(shown(_found(replays.find(conn, account_id(), webhook_id, replay_id))))


@blueprint.delete("/<webhook_id>/replays/<replay_id>")
@operation("Stop a replay", Returns(Replay))
def stop_replay(webhook_id: str, replay_id: str) -> Response:
    """Nothing more is sent for it; what was sent takes its course, and is no longer counted. One that is over stays as it is."""
    with services().pool.transaction() as conn:
        own_webhook(conn, webhook_id)
        before = _found(replays.find(conn, account_id(), webhook_id, replay_id))
        stopped = shown(_found(replays.stop(conn, account_id(), webhook_id, replay_id)))
        if before.finished_at is None:
            record(conn, Action.REPLAY_STOPPED, webhook_id, differences({"id": replay_id}, {}))
        return success(stopped)


def _end(body: ReplayBody | EstimateQuery) -> datetime:
    """The end of the range: now at the latest."""
    now = datetime.now(UTC)
    end = now if body.to is None else min(body.to, now)
    if body.from_ >= end:
        raise invalid({"from": "must lie before now" if end == now else "must lie before `to`"})
    return end


def _check(webhook: WebhookRow, body: ReplayBody) -> None:
    if not webhook.is_active:
        raise ApiError(409, "webhook_disabled", "The webhook is disabled and would be sent nothing: enable it first.")
    _check_subscribed(webhook, body.events)


def _check_subscribed(webhook: WebhookRow, events: list[str] | None) -> None:
    if WILDCARD in webhook.events or events is None or WILDCARD in events:
        return
    others = [name for name in events if name not in webhook.events]
    if others:
        raise invalid({"events": f"the webhook does not subscribe to {', '.join(others)}"})


def _check_running(running: dict[str, str], webhook_id: str) -> None:
    if webhook_id in running:
        message = f"The replay {running[webhook_id]} of this webhook is running: wait for its end, or stop it."
        raise ApiError(409, "replay_running", message, details={"replay": running[webhook_id]})
    limit = services().settings.replays_per_account
    if len(running) >= limit:
        message = f"Your account has {limit} replays running already, which is the limit."
        raise ApiError(409, "replay_limit_reached", message)


def shown(row: ReplayRow) -> Replay:
    return {
        "id": row.id,
        "webhookId": row.webhook_id,
        "from": iso(row.from_at),
        "to": iso(row.to_at),
        "events": row.events,
        "only": row.selection,
        "status": row.status,
        "error": row.error,
        "matched": row.matched,
        "sent": row.sent,
        "expired": row.expired,
        "delivered": row.delivered,
        "failed": row.failed,
        "skipped": row.skipped,
        "position": iso(row.position_at),
        "left": row.unread,
        "createdAt": iso(row.created_at),
        "finishedAt": iso(row.finished_at),
    }


def _new_id() -> str:
    return f"rpl_{secrets.token_hex(12)}"


def _found(row: ReplayRow | None) -> ReplayRow:
    if row is None:
        raise _not_found()
    return row


def _not_found() -> ApiError:
    return ApiError(404, "replay_not_found", "The webhook has no replay with this id.")
