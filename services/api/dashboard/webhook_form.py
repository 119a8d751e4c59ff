"""Forms that create and change a webhook, and rotate its secret."""

import json
import secrets
from http import HTTPStatus
from typing import Any, Final

from flask import redirect, render_template, request, url_for

from go2hooks.postgres.api_keys import Scope
from services.api.context import services
from services.api.dashboard import calls, form_fields
from services.api.dashboard.blueprint import back, blueprint, done, events
from services.api.dashboard.calls import PageError, Reply, ask
from services.api.dashboard.form_fields import Values
from services.api.dashboard.languages import snippets
from services.api.dashboard.session import key
from services.api.idempotency import HEADER as ONCE

_REUSED: Final = "This form has made a webhook already, with other values. Send it once more to make another one."


@blueprint.get("/webhooks/new")
def new_webhook() -> str:
    _require_write()
    return _form(None, form_fields.EMPTY)


@blueprint.post("/webhooks/new")
def create_webhook() -> Any:
    values = form_fields.typed(request.form)
    body, faults = form_fields.as_body(values)
    reply = ask("POST", "/webhooks", body, _once())
    if not reply.ok:
        return _form(None, values, _faults(reply, faults)), reply.status
    return _secret(reply.data, "created"), 201


@blueprint.get("/webhooks/<webhook_id>/edit")
def edit_webhook(webhook_id: str) -> str:
    _require_write()
    webhook = calls.get(f"/webhooks/{webhook_id}")["data"]
    return _form(webhook, form_fields.shown(webhook))


@blueprint.post("/webhooks/<webhook_id>/edit")
def change_webhook(webhook_id: str) -> Any:
    """Refused if the webhook was changed since the form was shown: the page shows the changes, and keeps the typed values."""
    values = form_fields.typed(request.form)
    body, faults = form_fields.as_body(values)
    for _ in range(3):  # deliveries that fail change what GET shows, and with it the ETag
        now = ask("GET", f"/webhooks/{webhook_id}")
        webhook = done(now)
        if form_fields.version(webhook) != request.form.get("version", form_fields.version(webhook)):
            changed = form_fields.differences(form_fields.shown(webhook), values)
            return _form(webhook, values, changed=changed), HTTPStatus.PRECONDITION_FAILED
        reply = ask("PATCH", f"/webhooks/{webhook_id}", body, {"If-Match": now.etag})
        if reply.status != HTTPStatus.PRECONDITION_FAILED:
            break
    if not reply.ok:
        return _form(webhook, values, _faults(reply, faults)), reply.status
    return back("show_webhook", "Changed. It is in force within a second.", webhook_id=webhook_id)


@blueprint.post("/webhooks/check-url")
def check_url() -> str:
    """Validate the URL while it is typed. The body lacks other required fields, so no webhook is created."""
    url = request.form.get("url", "").strip()
    reply = ask("POST", "/webhooks", {"url": url})
    return render_template("url_fault.html", url=url, fault=reply.error["details"].get("url"))


@blueprint.get("/webhooks/<webhook_id>/rotate-secret")
def confirm_rotation(webhook_id: str) -> str:
    _require_write()
    webhook = calls.get(f"/webhooks/{webhook_id}")["data"]
    overlap_s = services().settings.secret_overlap_s
    return render_template("rotate_secret.html", webhook=webhook, overlap_s=overlap_s, once=_new_once())


@blueprint.post("/webhooks/<webhook_id>/rotate-secret")
def rotate_secret(webhook_id: str) -> Any:
    if not request.form.get("once"):  # nobody has read what it does
        return redirect(url_for("dashboard.confirm_rotation", webhook_id=webhook_id))
    return _secret(done(ask("POST", f"/webhooks/{webhook_id}/rotate-secret", None, _once())), "rotated")


def _form(webhook: Any, values: Values, faults: dict[str, str] | None = None, changed: Any = None) -> str:
    """`changed`: the fields that somebody else has changed, with their present values."""
    return render_template(
        "webhook_form.html", webhook=webhook, values=values, faults=faults or {}, changed=changed, events=_examples(),
        labels=form_fields.LABELS, filter_examples=form_fields.FILTER_EXAMPLES, once=_new_once(),
        version=webhook and form_fields.version(webhook),
    )  # fmt: skip


def _examples() -> Any:
    return [{**each, "text": json.dumps(each["example"], indent=2, ensure_ascii=False)} for each in events()]


def _faults(reply: Reply, own: dict[str, str]) -> dict[str, str]:
    """The faults by field; "" for a fault of no field."""
    details = {name.partition(".")[0]: text for name, text in reply.error["details"].items()} | own
    faults = {name: details[name][:1].upper() + details[name][1:] for name in form_fields.LABELS if name in details}
    if reply.error["code"] == "idempotency_key_reused":
        return {"": _REUSED}
    return faults or {"": reply.error["message"]}


def _secret(webhook: Any, occasion: str) -> str:
    return render_template("secret.html", webhook=webhook, occasion=occasion, snippets=snippets())


def _once() -> dict[str, str]:
    """An Idempotency-Key for the form: a reload repeats the request, and gets the same answer."""
    once = request.form.get("once")
    return {ONCE: once} if once else {}


def _new_once() -> str:
    return secrets.token_urlsafe(16)


def _require_write() -> None:
    if not key().may(Scope.WRITE):
        message = "Your API key may only read. Sign in with one that has the scope write."
        raise PageError(Reply(403, {"error": {"message": message, "details": {}}}))
