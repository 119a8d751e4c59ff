"""The list of webhooks, and one of them with what can be done to it."""

from datetime import UTC, datetime
from typing import Any

from flask import render_template, request

from services.api.dashboard import calls, charts, words
from services.api.dashboard.blueprint import back, blueprint, done, events
from services.api.dashboard.calls import ask
from services.api.dashboard.webhook_page import webhook_page


@blueprint.get("/")
def list_webhooks() -> str:
    filters = {name: request.args.get(name, "") for name in ("search", "event", "state", "sort")}
    found = calls.get("/webhooks", page=request.args.get("page"), perPage=25, include="stats", **filters)
    return render_template(
        "webhooks.html", webhooks=found["data"], meta=found["meta"], filters=filters, events=events(), charts=charts
    )


@blueprint.get("/webhooks/<webhook_id>")
def show_webhook(webhook_id: str) -> str:
    shown = _charts(webhook_id)
    if request.headers.get("HX-Target") == "charts":
        return render_template("webhook_charts.html", webhook={"id": webhook_id}, **shown)
    deliveries = calls.get(f"/webhooks/{webhook_id}/deliveries", perPage=10)["data"]
    return webhook_page(
        "webhook.html", webhook_id, deliveries=deliveries, events=events(), **shown,
    )  # fmt: skip


def _charts(webhook_id: str) -> dict[str, Any]:
    """The data of a page's charts, for the range in the address."""
    asked = request.args.get("range", "")
    name = asked if asked in charts.RANGES else "24h"
    stats = calls.get(f"/webhooks/{webhook_id}/stats", **charts.span(name, datetime.now(UTC)))["data"]
    chart = charts.chart(stats, name)
    return {"charts": charts, "chart": chart, "stats": stats, "range": name, "ranges": charts.RANGES}


@blueprint.get("/webhooks/<webhook_id>/log")
def list_changes(webhook_id: str) -> str:
    """The audit log, newest first."""
    found = calls.get(f"/webhooks/{webhook_id}/audit", cursor=request.args.get("cursor"), perPage=25)
    return webhook_page("webhook_log.html", webhook_id, changes=found["data"], meta=found["meta"])


@blueprint.post("/webhooks/<webhook_id>/<any(enable, disable):action>")
def switch_webhook(webhook_id: str, action: str) -> Any:
    done(ask("PATCH", f"/webhooks/{webhook_id}", {"isActive": action == "enable"}))
    told = {
        "enable": "Enabled. Its count of failures begins anew.",
        "disable": "Disabled. What arrives is recorded as skipped.",
    }
    return back("show_webhook", told[action], webhook_id=webhook_id)


@blueprint.post("/webhooks/<webhook_id>/test")
def send_test(webhook_id: str) -> Any:
    """The answer is shown in the form's page; without JavaScript, the page is loaded again."""
    reply = ask("POST", f"/webhooks/{webhook_id}/test", {"event": request.form.get("event", "")}, wait="true")
    in_place = "HX-Request" in request.headers
    if in_place and not reply.ok:
        return render_template("test_answer.html", refused=reply.error["message"])
    result = done(reply)
    told, kind = words.told_of_result(result), "info" if result.get("delivered", True) else "fault"
    if in_place:
        return render_template("test_answer.html", webhook_id=webhook_id, result=result, told=told, kind=kind)
    return back("show_webhook", told, kind, webhook_id=webhook_id)


@blueprint.post("/webhooks/<webhook_id>/delete")
def delete_webhook(webhook_id: str) -> Any:
    webhook = calls.get(f"/webhooks/{webhook_id}")["data"]
    if request.form.get("name", "").strip() != webhook["name"]:
        return back("show_webhook", "Not deleted: type the webhook's name to confirm.", "fault", webhook_id=webhook_id)
    done(ask("DELETE", f"/webhooks/{webhook_id}"))
    return back("list_webhooks", f"“{webhook['name']}” is deleted.")
