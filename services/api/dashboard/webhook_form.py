"""A webhook is made, changed, or given another secret."""

from functools import partial
from typing import Any

from flask import render_template, request

from services.api.dashboard import calls
from services.api.dashboard.blueprint import back, blueprint, done, events
from services.api.dashboard.calls import Reply, ask


@blueprint.get("/webhooks/new")
def new_webhook() -> str:
    return render_template("webhook_form.html", webhook=None, wanted={}, faults={}, events=events())


@blueprint.post("/webhooks/new")
def create_webhook() -> Any:
    wanted = _wanted()
    reply = ask("POST", "/webhooks", wanted)
    if not reply.ok:
        return _form_again(None, wanted, reply)
    return render_template("secret.html", webhook=reply.data, occasion="created"), 201


@blueprint.get("/webhooks/<webhook_id>/edit")
def edit_webhook(webhook_id: str) -> str:
    webhook = calls.get(f"/webhooks/{webhook_id}")["data"]
    return render_template("webhook_form.html", webhook=webhook, wanted=webhook, faults={}, events=events())


@blueprint.post("/webhooks/<webhook_id>/edit")
def change_webhook(webhook_id: str) -> Any:
    wanted = _wanted()
    reply = ask("PATCH", f"/webhooks/{webhook_id}", wanted)
    if not reply.ok:
        return _form_again(calls.get(f"/webhooks/{webhook_id}")["data"], wanted, reply)
    return back(webhook_id, "Changed. It is in force within a second.")


@blueprint.post("/webhooks/<webhook_id>/rotate-secret")
def rotate_secret(webhook_id: str) -> str:
    webhook = done(ask("POST", f"/webhooks/{webhook_id}/rotate-secret"))
    return render_template("secret.html", webhook=webhook, occasion="rotated")


def _wanted() -> dict[str, Any]:
    """What the form says of a webhook."""
    form = request.form
    return {"name": form.get("name", ""), "url": form.get("url", "").strip(), "events": form.getlist("events")}


def _form_again(webhook: Any, wanted: dict[str, Any], reply: Reply) -> tuple[str, int]:
    """With what was typed, and what is wrong with it beside each field."""
    faults = {name.partition(".")[0]: text for name, text in reply.error["details"].items()}
    page = partial(render_template, "webhook_form.html", webhook=webhook, wanted=wanted, events=events())
    return page(faults=faults or {"": reply.error["message"]}), reply.status
