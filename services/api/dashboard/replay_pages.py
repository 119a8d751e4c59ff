"""Replays of a webhook: begun and stopped."""

from datetime import UTC, datetime, timedelta
from typing import Any

from flask import request

from services.api.dashboard import words
from services.api.dashboard.blueprint import back, blueprint, done
from services.api.dashboard.calls import ask


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
    return back(webhook_id, "The replay has begun. Reload this page to see how far it has come.")


@blueprint.post("/webhooks/<webhook_id>/replays/<replay_id>/stop")
def stop_replay(webhook_id: str, replay_id: str) -> Any:
    done(ask("DELETE", f"/webhooks/{webhook_id}/replays/{replay_id}"))
    return back(webhook_id, "The replay is stopped. What was sent takes its course.")
