"""Deliveries: those of an account or a webhook as they come in, and one of them with its attempts."""

import json
from hashlib import sha256
from http import HTTPStatus
from typing import Any, Final

from flask import Response, render_template, request, url_for

from go2hooks.core.domain.outcome import SkipReason, State
from services.api.dashboard import calls, words
from services.api.dashboard.blueprint import back, blueprint, done, events
from services.api.dashboard.calls import PageError, Reply, ask
from services.api.dashboard.remedies import remedy

_FILTERS: Final = ("status", "event", "since", "until", "webhook", "id")
_PER_PAGE: Final = 25


@blueprint.get("/deliveries")
def list_deliveries() -> str:
    found = calls.get("/webhooks", perPage=100)  # with more webhooks, the form asks for an id
    choice = [] if found["meta"]["hasMore"] else sorted(found["data"], key=lambda each: str(each["name"]).lower())
    return _list(None, choice=choice)


@blueprint.get("/webhooks/<webhook_id>/deliveries")
def list_webhook_deliveries(webhook_id: str) -> str:
    return _list(calls.get(f"/webhooks/{webhook_id}")["data"])


@blueprint.get("/deliveries/rows")
def show_newest() -> Any:
    """The rows of the newest page; 304 while they are as the browser has them, so that it may ask often."""
    wanted = _wanted()
    reply = _ask(wanted, request.args.get("perPage"))
    rows = done(reply)
    webhook = {"id": wanted["webhook"]} if request.args.get("of") == "webhook" else None
    return _unless_known(reply.body, lambda: render_template("delivery_rows.html", deliveries=rows, webhook=webhook))


def _list(webhook: Any, **more: Any) -> str:
    of_webhook = {} if webhook is None else {"webhook": webhook["id"]}
    filters, cursor = _wanted() | of_webhook, request.args.get("cursor")
    reply = _ask(filters, _PER_PAGE, cursor)
    if not reply.ok and "cursor" in reply.error["details"]:
        raise PageError(reply)
    meta = reply.body["meta"] if reply.ok else {}
    return render_template(
        "deliveries.html", webhook=webhook, filters=filters, faults={} if reply.ok else _faults(reply), statuses=tuple(State),
        events=events(), cursor=cursor, deliveries=reply.data if reply.ok else [], **_links(filters, of_webhook, meta), **more,
    )  # fmt: skip


def _links(filters: dict[str, str], of_webhook: dict[str, str], meta: dict[str, Any]) -> dict[str, Any]:
    """Links to the newest page, to the next page, and to the rows that a script polls."""
    chosen = {name: value for name, value in filters.items() if value and name not in of_webhook}
    here: dict[str, Any] = {"endpoint": request.endpoint, **(request.view_args or {}), **chosen}
    asked: dict[str, Any] = {**chosen, **of_webhook, "of": "webhook" if of_webhook else None}
    return {
        "is_filtered": bool(chosen),
        "newest": url_for(**here),
        "older": url_for(**here, cursor=meta["nextCursor"]) if meta.get("hasMore") else None,
        "live": url_for("dashboard.show_newest", perPage=_PER_PAGE, **asked),
    }


def _wanted() -> dict[str, str]:
    return {name: request.args.get(name, "").strip() for name in _FILTERS}


def _ask(filters: dict[str, str], per_page: Any, cursor: str | None = None) -> Reply:
    """Request with the resource's parameters. An id's prefix tells whether an event, a delivery or a webhook has it."""
    query = {name: filters[name] for name in ("status", "event", "webhook")}
    query |= {name: words.in_utc(filters[name]) for name in ("since", "until")}
    if wanted := filters["id"]:
        kind = {"dlv": "deliveryId", "wh": "webhook"}.get(wanted.partition("_")[0], "eventId")
        query[kind] = wanted
    return ask("GET", "/deliveries", perPage=per_page, cursor=cursor, **query)


def _faults(reply: Reply) -> dict[str, str]:
    """The faults by the form's field. Raises PageError for an error that is no field's."""
    faults = dict(reply.error["details"])
    if reply.error["code"] == "webhook_not_found":
        faults["webhook"] = reply.error["message"]
    elif reply.status != HTTPStatus.UNPROCESSABLE_ENTITY:
        raise PageError(reply)
    faults["id"] = next((faults.pop(name) for name in ("eventId", "deliveryId") if name in faults), "")
    if request.args.get("id", "").strip().startswith("wh_") and "webhook" in faults:
        faults["id"] = faults.pop("webhook")
    return {name: fault for name, fault in faults.items() if fault}


def _unless_known(body: Any, render: Any) -> Response:
    """The rendered page, or 304 when the browser has this `body`. The ETag is the body's: a page changes every second."""
    etag = sha256(json.dumps(body).encode()).hexdigest()[:32]
    answer = Response(status=HTTPStatus.NOT_MODIFIED) if request.if_none_match.contains(etag) else Response(render())
    answer.set_etag(etag)
    return answer


# --- one of them


@blueprint.get("/webhooks/<webhook_id>/deliveries/<delivery_id>")
def show_delivery(webhook_id: str, delivery_id: str) -> str:
    return render_template("delivery.html", **_detail(webhook_id, delivery_id))


@blueprint.get("/webhooks/<webhook_id>/deliveries/<delivery_id>/progress")
def show_progress(webhook_id: str, delivery_id: str) -> Any:
    """The delivery's state, 304 while it is unchanged. Only then is the payload read from Kafka."""
    last = calls.get("/deliveries", webhook=webhook_id, deliveryId=delivery_id, perPage=1)["data"]
    return _unless_known(last, lambda: render_template("delivery_progress.html", **_detail(webhook_id, delivery_id)))


def _detail(webhook_id: str, delivery_id: str) -> dict[str, Any]:
    webhook = calls.get(f"/webhooks/{webhook_id}")["data"]
    delivery = calls.get(f"/webhooks/{webhook_id}/deliveries/{delivery_id}")["data"]
    for each in delivery["attempts"]:
        code = each["errorCode"]
        each["state"] = "skipped" if code in tuple(SkipReason) else "failed" if code else "delivered"
        each["remedy"] = remedy(each, webhook["url"])
    return {"webhook": webhook, "delivery": delivery, "payload": words.pretty(delivery["request"]["payload"])}


@blueprint.post("/webhooks/<webhook_id>/deliveries/<delivery_id>/redeliver")
def redeliver(webhook_id: str, delivery_id: str) -> Any:
    result = done(ask("POST", f"/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver", wait="true"))
    kind = "info" if result.get("delivered", True) else "fault"
    return back("show_delivery", words.told_of_result(result), kind, webhook_id=webhook_id, delivery_id=delivery_id)


@blueprint.post("/webhooks/<webhook_id>/deliveries/<delivery_id>/curl")
def show_curl(webhook_id: str, delivery_id: str) -> str:
    """A page of its own, or where a script asks the part of it that it puts into the delivery's."""
    made = done(ask("POST", f"/webhooks/{webhook_id}/deliveries/{delivery_id}/curl"))
    template = "curl_command.html" if "HX-Request" in request.headers else "curl.html"
    return render_template(template, curl=made, webhook_id=webhook_id, delivery_id=delivery_id)
