"""Deliveries: one with its attempts, and sending it again."""

from typing import Any

from flask import flash, redirect, render_template, url_for

from services.api.dashboard import calls, words
from services.api.dashboard.blueprint import blueprint, done
from services.api.dashboard.calls import ask


@blueprint.get("/webhooks/<webhook_id>/deliveries/<delivery_id>")
def show_delivery(webhook_id: str, delivery_id: str) -> str:
    webhook = calls.get(f"/webhooks/{webhook_id}")["data"]
    delivery = calls.get(f"/webhooks/{webhook_id}/deliveries/{delivery_id}")["data"]
    payload = words.pretty(delivery["request"]["payload"])
    return render_template("delivery.html", webhook=webhook, delivery=delivery, payload=payload)


@blueprint.post("/webhooks/<webhook_id>/deliveries/<delivery_id>/redeliver")
def redeliver(webhook_id: str, delivery_id: str) -> Any:
    result = done(ask("POST", f"/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver", wait="true"))
    flash(words.told_of_result(result), "info" if result.get("delivered", True) else "fault")
    return redirect(url_for("dashboard.show_delivery", webhook_id=webhook_id, delivery_id=delivery_id))
