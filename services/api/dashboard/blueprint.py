"""What every page shares: authentication, headers, and error pages."""

from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from flask import Blueprint, Response, flash, g, redirect, render_template, request, url_for
from flask_wtf.csrf import CSRFError

from go2hooks.postgres.api_keys import Scope
from services.api.dashboard import calls, words
from services.api.dashboard.calls import PageError, Reply
from services.api.dashboard.session import came_by_https, csrf, operates, signed_in

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
_OPEN: Final = frozenset(
    f"dashboard.{name}" for name in ("sign_in_form", "sign_in_now", "open_link", "use_link", "static")
)

blueprint = Blueprint(
    "dashboard", __name__, template_folder="templates", static_folder="static", static_url_path="/static/dashboard"
)


@blueprint.before_request
def _come_again() -> Any:
    """A link on another site sends no SameSite cookie. A page of ours repeats the request, to keep the session."""
    is_foreign = (
        request.headers.get("Sec-Fetch-Site") == "cross-site" and request.headers.get("Sec-Fetch-Dest") == "document"
    )
    if is_foreign and request.method == "GET" and not request.cookies:
        return render_template("come_again.html")
    return None


@blueprint.before_request
def _admit() -> Any:
    if request.endpoint not in _OPEN:
        known = signed_in()
        if known is None:
            return _to_sign_in()
        g.dashboard_key = known
        g.account_id = known.account_id
    csrf.protect()
    return None


def _to_sign_in() -> Any:
    """Redirect the whole page, also when htmx requested a part of it."""
    if "HX-Request" in request.headers:
        page = urlsplit(request.headers.get("HX-Current-URL", ""))
        address = url_for("dashboard.sign_in_form", next=page.path or None)
        return Response(status=204, headers={"HX-Redirect": address})
    return redirect(url_for("dashboard.sign_in_form", next=request.full_path if request.method == "GET" else None))


@blueprint.after_request
def _harden(response: Response) -> Response:
    if response.is_json and not response.direct_passthrough:  # an error under a page, such as a Postgres that is away
        message = response.get_json()["error"]["message"]
        response.set_data(render_template("error.html", title="That did not work", message=message))
        response.mimetype = "text/html"
    response.headers.setdefault("Content-Security-Policy", _POLICY)
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
    may_operate = known is not None and operates(known)
    origin = f"{'https' if came_by_https() else request.scheme}://{request.host}"  # as the browser sees it
    about = {"reader": known, "may_write": may_write, "may_operate": may_operate}
    return about | {"now": datetime.now(UTC), "origin": origin}


for _name, _filter in words.FILTERS.items():
    blueprint.add_app_template_filter(_filter, _name)


# --- for the pages


def events() -> Any:
    """The event types, for a form."""
    return calls.get("/event-types")["data"]


def done(reply: Reply) -> Any:
    """The data of an answer. Raises PageError for a refusal."""
    if not reply.ok:
        raise PageError(reply)
    return reply.data


def back(page: str, told: str, kind: str = "info", **values: Any) -> Any:
    """Redirect to a page, which shows this message."""
    flash(told, kind)
    return redirect(url_for(f"dashboard.{page}", **values))
