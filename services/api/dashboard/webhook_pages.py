"""The list of webhooks, and one of them with what can be done to it."""

from typing import Any

from flask import flash, redirect, render_template, request, url_for

from services.api.dashboard import calls, charts, words
from services.api.dashboard.blueprint import back, blueprint, done, events
from services.api.dashboard.calls import ask


@blueprint.get("/")
def list_webhooks() -> str:
    filters = {name: request.args.get(name, "") for name in ("search", "event", "state", "sort")}
    found = calls.get("/webhooks", page=request.args.get("page"), perPage=25, include="stats", **filters)
    return render_template(
        "webhooks.html", webhooks=found["data"], meta=found["meta"], filters=filters, events=events(), charts=charts
    )


@blueprint.get("/webhooks/<webhook_id>")
def show_webhook(webhook_id: str) -> str:
    webhook = calls.get(f"/webhooks/{webhook_id}")["data"]
    filters = {name: request.args.get(name, "") for name in ("status", "event")}
    found = calls.get(f"/webhooks/{webhook_id}/deliveries", cursor=request.args.get("cursor"), **filters)
    changes = calls.get(f"/webhooks/{webhook_id}/audit", perPage=10)["data"]
    replays = calls.get(f"/webhooks/{webhook_id}/replays", perPage=5)["data"]
    return render_template(
        "webhook.html", webhook=webhook, deliveries=found["data"], meta=found["meta"], filters=filters, changes=changes,
        replays=replays, ranges=words.RANGES, events=events(),
    )  # fmt: skip


@blueprint.post("/webhooks/<webhook_id>/<any(enable, disable):action>")
def switch_webhook(webhook_id: str, action: str) -> Any:
    done(ask("PATCH", f"/webhooks/{webhook_id}", {"isActive": action == "enable"}))
    told = {
        "enable": "Enabled. Its count of failures begins anew.",
        "disable": "Disabled. What arrives is recorded as skipped.",
    }
    return back(webhook_id, told[action])


@blueprint.post("/webhooks/<webhook_id>/test")
def send_test(webhook_id: str) -> Any:
    result = done(ask("POST", f"/webhooks/{webhook_id}/test", {"event": request.form.get("event", "")}, wait="true"))
    return back(webhook_id, words.told_of_result(result), kind="info" if result.get("delivered", True) else "fault")


@blueprint.post("/webhooks/<webhook_id>/delete")
def delete_webhook(webhook_id: str) -> Any:
    webhook = calls.get(f"/webhooks/{webhook_id}")["data"]
    if request.form.get("name", "").strip() != webhook["name"]:
        return back(webhook_id, "Not deleted: type the webhook's name to confirm.", kind="fault")
    done(ask("DELETE", f"/webhooks/{webhook_id}"))
    flash(f"“{webhook['name']}” is deleted.", "info")
    return redirect(url_for("dashboard.list_webhooks"))
