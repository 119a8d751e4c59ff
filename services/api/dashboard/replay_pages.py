"""Replays of a webhook: estimate, start, watch and stop them."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from flask import render_template, request

from services.api.dashboard import calls, words
from services.api.dashboard.blueprint import back, blueprint, done, events
from services.api.dashboard.calls import Reply, ask
from services.api.dashboard.webhook_page import off_since, webhook_page

SELECTIONS: Final = {
    "failed": "what has failed for good",
    "skipped": "what was skipped while it was disabled",
    "missed": "what it never got: fill a new webhook",
    "all": "everything, delivered or not",
}


@blueprint.get("/webhooks/<webhook_id>/replays")
def list_replays(webhook_id: str) -> str:
    found = calls.get(f"/webhooks/{webhook_id}/replays", page=request.args.get("page"), perPage=20)
    shown = {"replays": found["data"], "meta": found["meta"]}
    if request.headers.get("HX-Target") == "replays":
        return render_template("replay_list.html", webhook={"id": webhook_id}, **shown)
    return _page(webhook_id, {}, shown)


@blueprint.post("/webhooks/<webhook_id>/replays/estimate")
def estimate_replay(webhook_id: str) -> Any:
    """The estimate for the form's choice, as a part of the page or as a whole page."""
    wanted = _wanted()
    query = wanted | {"events": ",".join(wanted.get("events", []))}
    reply = ask("GET", f"/webhooks/{webhook_id}/replay-estimate", **query)
    if "HX-Request" in request.headers:
        return render_template("replay_estimate.html", reply=reply)
    found = calls.get(f"/webhooks/{webhook_id}/replays", perPage=20)
    return _page(webhook_id, {"reply": reply}, {"replays": found["data"], "meta": found["meta"]})


@blueprint.post("/webhooks/<webhook_id>/replays")
def start_replay(webhook_id: str) -> Any:
    reply = ask("POST", f"/webhooks/{webhook_id}/replays", _wanted())
    done(reply)
    return back("list_replays", "The replay has begun.", webhook_id=webhook_id)


@blueprint.post("/webhooks/<webhook_id>/replays/<replay_id>/stop")
def stop_replay(webhook_id: str, replay_id: str) -> Any:
    done(ask("DELETE", f"/webhooks/{webhook_id}/replays/{replay_id}"))
    return back("list_replays", "The replay is stopped. What was sent takes its course.", webhook_id=webhook_id)


@blueprint.post("/webhooks/<webhook_id>/enable-and-replay")
def enable_and_replay(webhook_id: str) -> Any:
    """Enable, then replay. If the replay fails, the skipped deliveries are kept and can be replayed later."""
    webhook = calls.get(f"/webhooks/{webhook_id}")["data"]
    if webhook["isActive"]:
        return back(
            "list_replays", "It is enabled already. What was skipped can be replayed here.", webhook_id=webhook_id
        )
    done(ask("PATCH", f"/webhooks/{webhook_id}", {"isActive": True}))
    reply = ask("POST", f"/webhooks/{webhook_id}/replays", {"from": off_since(webhook), "only": "skipped"})
    if reply.ok:
        return back("list_replays", "Enabled, and what was skipped is being sent again.", webhook_id=webhook_id)
    return back(
        "list_replays",
        f"Enabled. But the replay has not begun: {_why(reply)} What was skipped is kept; replay it here.",
        "fault",
        webhook_id=webhook_id,
    )


def _page(webhook_id: str, estimate: dict[str, Any], listed: dict[str, Any]) -> str:
    form = request.form
    chosen = {name: form.get(name, "") for name in ("only", "range", "from", "to")} | {"events": form.getlist("events")}
    return webhook_page(
        "webhook_replays.html", webhook_id, selections=SELECTIONS, ranges=words.RANGES, chosen=chosen, events=events(),
        **estimate, **listed,
    )  # fmt: skip


def _wanted() -> dict[str, Any]:
    """The form's request: its own range if one is given, else a range that ends now."""
    form = request.form
    hours = words.RANGES.get(form.get("range", ""), 1)
    begin = words.in_utc(form.get("from", "")) or (datetime.now(UTC) - timedelta(hours=hours)).isoformat()
    wanted = {
        "from": begin,
        "to": words.in_utc(form.get("to", "")),
        "only": form.get("only", ""),
        "events": form.getlist("events"),
    }
    return {name: value for name, value in wanted.items() if value or name == "only"}


def _why(reply: Reply) -> str:
    return " ".join([reply.error["message"], *(f"{name} {text}." for name, text in reply.error["details"].items())])
