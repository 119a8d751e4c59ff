"""The head of every page of one webhook: the webhook, and the deliveries skipped while it was disabled."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from flask import render_template

from services.api.context import services
from services.api.dashboard import calls
from services.api.dashboard.calls import ask

_A_DAY: Final = timedelta(days=1)


def webhook_page(template: str, webhook_id: str, **shown: Any) -> str:
    webhook = calls.get(f"/webhooks/{webhook_id}")["data"]
    day_ago = (datetime.now(UTC) - _A_DAY).isoformat()
    return render_template(template, webhook=webhook, skipped=_skipped(webhook), day_ago=day_ago, **shown)


def off_since(webhook: dict[str, Any]) -> str:
    """The earliest acceptance time of skipped deliveries, including those that waited for a retry when it was disabled."""
    longest = timedelta(seconds=sum(services().settings.retry_delays))
    return (datetime.fromisoformat(webhook["disabledAt"]) - longest).isoformat()


def _skipped(webhook: dict[str, Any]) -> Any:
    """The number of deliveries to replay; None for an enabled webhook, or when counting takes too long."""
    if webhook["isActive"]:
        return None
    reply = ask("GET", f"/webhooks/{webhook['id']}/replay-estimate", **{"from": off_since(webhook), "only": "skipped"})
    return reply.data if reply.ok else None
