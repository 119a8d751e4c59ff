"""The pages and the forms on them. A form's answer is a redirect, so that a reload repeats nothing."""

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from flask import Blueprint, Flask, Response, flash, g, redirect, render_template, request, url_for
from flask_wtf.csrf import CSRFError

from go2hooks.postgres.api_keys import Scope
from go2hooks.settings import Settings
from services.api.dashboard import calls, words
from services.api.dashboard.calls import PageError, Reply, ask
from services.api.dashboard.session import csrf, register_sessions, sign_in, sign_out, signed_in
from services.api.errors import ApiError

_POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_OPEN: Final = frozenset({"dashboard.sign_in_form", "dashboard.sign_in_now", "dashboard.static"})
_HERE: Final = Path(__file__).parent
_STATIC_S: Final = 3600

blueprint = Blueprint(
    "dashboard", __name__, template_folder="templates", static_folder="static", static_url_path="/static/dashboard"
)


def register(app: Flask, settings: Settings) -> None:
    """Add the pages to the API's app."""
    register_sessions(app, settings)
    app.register_blueprint(blueprint)


# --- before, after, and when something goes wrong


@blueprint.before_request
def _admit() -> Any:
    if request.endpoint not in _OPEN:
        known = signed_in()
        if known is None:
            return redirect(
                url_for("dashboard.sign_in_form", next=request.full_path if request.method == "GET" else None)
            )
        g.dashboard_key = known
        g.account_id = known.account_id
    csrf.protect()
    return None


@blueprint.after_request
def _harden(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    if request.endpoint != "dashboard.static":
        response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.errorhandler(PageError)
def _refused(error: PageError) -> tuple[str, int]:
    details = error.reply.error["details"]
    page = render_template("error.html", title="That did not work", message=str(error), details=details)
    return page, error.reply.status


@blueprint.errorhandler(CSRFError)
def _forged(_error: CSRFError) -> tuple[str, int]:
    message = "This form is no longer valid. Go back, reload the page, and try again; nothing was changed."
    return render_template("error.html", title="Nothing was changed", message=message), 400


@blueprint.context_processor
def _about_reader() -> dict[str, Any]:
    known = g.get("dashboard_key")
    may_write = known is not None and known.may(Scope.WRITE)
    return {"reader": known, "may_write": may_write, "now": datetime.now(UTC)}


for _name, _filter in words.FILTERS.items():
    blueprint.add_app_template_filter(_filter, _name)


# --- signing in


@blueprint.get("/sign-in")
def sign_in_form() -> str:
    return render_template("sign_in.html", next=request.args.get("next", ""))


@blueprint.post("/sign-in")
def sign_in_now() -> Any:
    try:
        sign_in(request.form.get("key", "").strip())
    except ApiError as error:
        return render_template("sign_in.html", next=request.form.get("next", ""), fault=error.message), error.status
    return redirect(_own_address(request.form.get("next", "")))


@blueprint.post("/sign-out")
def sign_out_now() -> Any:
    sign_out()
    return redirect(url_for("dashboard.sign_in_form"))


def _own_address(wanted: str) -> str:
    """Where to go after signing in: nowhere but to a page of ours."""
    parts = urlsplit(wanted)
    own = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and not parts.netloc and not parts.scheme
    return wanted if own else url_for("dashboard.list_webhooks")


# --- webhooks


@blueprint.get("/")
def list_webhooks() -> str:
    filters = {name: request.args.get(name, "") for name in ("search", "event", "state", "sort")}
    found = calls.get("/webhooks", page=request.args.get("page"), perPage=25, **filters)
    return render_template(
        "webhooks.html", webhooks=found["data"], meta=found["meta"], filters=filters, events=_events()
    )


@blueprint.get("/webhooks/new")
def new_webhook() -> str:
    return render_template("webhook_form.html", webhook=None, wanted={}, faults={}, events=_events())


@blueprint.post("/webhooks/new")
def create_webhook() -> Any:
    wanted = _wanted()
    reply = ask("POST", "/webhooks", wanted)
    if not reply.ok:
        return _form_again(None, wanted, reply)
    return render_template("secret.html", webhook=reply.data, occasion="created"), 201


@blueprint.get("/webhooks/<webhook_id>")
def show_webhook(webhook_id: str) -> str:
    webhook = calls.get(f"/webhooks/{webhook_id}")["data"]
    filters = {name: request.args.get(name, "") for name in ("status", "event")}
    found = calls.get(f"/webhooks/{webhook_id}/deliveries", cursor=request.args.get("cursor"), **filters)
    changes = calls.get(f"/webhooks/{webhook_id}/audit", perPage=10)["data"]
    replays = calls.get(f"/webhooks/{webhook_id}/replays", perPage=5)["data"]
    return render_template(
        "webhook.html", webhook=webhook, deliveries=found["data"], meta=found["meta"], filters=filters, changes=changes,
        replays=replays, ranges=words.RANGES, events=_events(),
    )  # fmt: skip


@blueprint.get("/webhooks/<webhook_id>/edit")
def edit_webhook(webhook_id: str) -> str:
    webhook = calls.get(f"/webhooks/{webhook_id}")["data"]
    return render_template("webhook_form.html", webhook=webhook, wanted=webhook, faults={}, events=_events())


@blueprint.post("/webhooks/<webhook_id>/edit")
def change_webhook(webhook_id: str) -> Any:
    wanted = _wanted()
    reply = ask("PATCH", f"/webhooks/{webhook_id}", wanted)
    if not reply.ok:
        return _form_again(calls.get(f"/webhooks/{webhook_id}")["data"], wanted, reply)
    return _back(webhook_id, "Changed. It is in force within a second.")


@blueprint.post("/webhooks/<webhook_id>/<any(enable, disable):action>")
def switch_webhook(webhook_id: str, action: str) -> Any:
    _done(ask("PATCH", f"/webhooks/{webhook_id}", {"isActive": action == "enable"}))
    told = {
        "enable": "Enabled. Its count of failures begins anew.",
        "disable": "Disabled. What arrives is recorded as skipped.",
    }
    return _back(webhook_id, told[action])


@blueprint.post("/webhooks/<webhook_id>/test")
def send_test(webhook_id: str) -> Any:
    result = _done(ask("POST", f"/webhooks/{webhook_id}/test", {"event": request.form.get("event", "")}, wait="true"))
    return _back(webhook_id, words.told_of_result(result), kind="info" if result.get("delivered", True) else "fault")


@blueprint.post("/webhooks/<webhook_id>/rotate-secret")
def rotate_secret(webhook_id: str) -> str:
    webhook = _done(ask("POST", f"/webhooks/{webhook_id}/rotate-secret"))
    return render_template("secret.html", webhook=webhook, occasion="rotated")


@blueprint.post("/webhooks/<webhook_id>/delete")
def delete_webhook(webhook_id: str) -> Any:
    webhook = calls.get(f"/webhooks/{webhook_id}")["data"]
    if request.form.get("name", "").strip() != webhook["name"]:
        return _back(webhook_id, "Not deleted: type the webhook's name to confirm.", kind="fault")
    _done(ask("DELETE", f"/webhooks/{webhook_id}"))
    flash(f"“{webhook['name']}” is deleted.", "info")
    return redirect(url_for("dashboard.list_webhooks"))


# --- replays


@blueprint.post("/webhooks/<webhook_id>/replays")
def start_replay(webhook_id: str) -> Any:
    """From now back, for a time that the form offers."""
    hours = words.RANGES.get(request.form.get("range", ""), 1)
    since = datetime.now(UTC) - timedelta(hours=hours)
    _done(
        ask(
            "POST", f"/webhooks/{webhook_id}/replays", {"from": since.isoformat(), "only": request.form.get("only", "")}
        )
    )
    return _back(webhook_id, "The replay has begun. Reload this page to see how far it has come.")


@blueprint.post("/webhooks/<webhook_id>/replays/<replay_id>/stop")
def stop_replay(webhook_id: str, replay_id: str) -> Any:
    _done(ask("DELETE", f"/webhooks/{webhook_id}/replays/{replay_id}"))
    return _back(webhook_id, "The replay is stopped. What was sent takes its course.")


# --- deliveries


@blueprint.get("/webhooks/<webhook_id>/deliveries/<delivery_id>")
def show_delivery(webhook_id: str, delivery_id: str) -> str:
    webhook = calls.get(f"/webhooks/{webhook_id}")["data"]
    delivery = calls.get(f"/webhooks/{webhook_id}/deliveries/{delivery_id}")["data"]
    payload = words.pretty(delivery["request"]["payload"])
    return render_template("delivery.html", webhook=webhook, delivery=delivery, payload=payload)


@blueprint.post("/webhooks/<webhook_id>/deliveries/<delivery_id>/redeliver")
def redeliver(webhook_id: str, delivery_id: str) -> Any:
    result = _done(ask("POST", f"/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver", wait="true"))
    flash(words.told_of_result(result), "info" if result.get("delivered", True) else "fault")
    return redirect(url_for("dashboard.show_delivery", webhook_id=webhook_id, delivery_id=delivery_id))


# --- inside


def _wanted() -> dict[str, Any]:
    """What the form says of a webhook."""
    form = request.form
    return {"name": form.get("name", ""), "url": form.get("url", "").strip(), "events": form.getlist("events")}


def _form_again(webhook: Any, wanted: dict[str, Any], reply: Reply) -> tuple[str, int]:
    """With what was typed, and what is wrong with it beside each field."""
    faults = {name.partition(".")[0]: text for name, text in reply.error["details"].items()}
    page = partial(render_template, "webhook_form.html", webhook=webhook, wanted=wanted, events=_events())
    return page(faults=faults or {"": reply.error["message"]}), reply.status


def _events() -> Any:
    return calls.get("/event-types")["data"]


def _done(reply: Reply) -> Any:
    if not reply.ok:
        raise PageError(reply)
    return reply.data


def _back(webhook_id: str, told: str, kind: str = "info") -> Any:
    flash(told, kind)
    return redirect(url_for("dashboard.show_webhook", webhook_id=webhook_id))
