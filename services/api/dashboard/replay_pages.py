"""Replays of a webhook: begun and stopped."""

from datetime import UTC, datetime, timedelta
from typing import Any

from flask import flash, redirect, render_template, request, url_for

from services.api.dashboard import calls, words
from services.api.dashboard.blueprint import blueprint, done
from services.api.dashboard.calls import ask


@blueprint.get("/webhooks/<webhook_id>/replays")
def list_replays(webhook_id: str) -> str:
    webhook = calls.get(f"/webhooks/{webhook_id}")["data"]
    found = calls.get(f"/webhooks/{webhook_id}/replays", perPage=20)
    return render_template("webhook_replays.html", webhook=webhook, replays=found["data"], ranges=words.RANGES)


@blueprint.post("/webhooks/<webhook_id>/replays")
def start_replay(webhook_id: str) -> Any:
    """From now back, for a time that the form offers."""
    hours = words.RANGES.get(request.form.get("range", ""), 1)
    since = datetime.now(UTC) - timedelta(hours=hours)
    done(
        ask(
            "POST", f"/webhooks/{webhook_id}/replays", {"from": since.isoformat(), "only": request.form.get("only", "")}
        )
    )
    return _back(webhook_id, "The replay has begun.")


@blueprint.post("/webhooks/<webhook_id>/replays/<replay_id>/stop")
def stop_replay(webhook_id: str, replay_id: str) -> Any:
    done(ask("DELETE", f"/webhooks/{webhook_id}/replays/{replay_id}"))
    return _back(webhook_id, "The replay is stopped. What was sent takes its course.")


def _back(webhook_id: str, told: str, kind: str = "info") -> Any:
    flash(told, kind)
    return redirect(url_for("dashboard.list_replays", webhook_id=webhook_id))
