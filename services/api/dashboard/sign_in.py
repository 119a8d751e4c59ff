"""Signing in with an API key or by the link that `go2hooks up` prints, and out."""

from typing import Any, Final
from urllib.parse import urlsplit

from flask import redirect, render_template, request, url_for

from go2hooks.core.security.addresses import is_loopback
from services.api.context import services
from services.api.dashboard.blueprint import blueprint
from services.api.dashboard.session import sign_in, sign_in_by_link, sign_out
from services.api.errors import ApiError

_FORWARDED: Final = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")
_USED_UP: Final = (
    "This link has signed somebody in already, or is older than five minutes. Sign in with an API key: "
    "go2hooks up keeps one in endpoints.json, as apiKey. Started again, it prints a new link."
)
_FROM_AFAR: Final = (
    "Such a link works on the machine that runs Go2 Webhooks alone, with a browser there, where the API listens on a loopback "
    "address. Sign in with an API key."
)


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


@blueprint.get("/sign-in/link")
def open_link() -> Any:
    """Does not use the token: link previews fetch addresses that nobody has opened. The page submits its form itself."""
    if not _is_local():
        return _ask_for_key(_FROM_AFAR, 403)
    return render_template("sign_in_link.html", link_token=request.args.get("token", ""))


@blueprint.post("/sign-in/link")
def use_link() -> Any:
    if not _is_local():
        return _ask_for_key(_FROM_AFAR, 403)
    if not sign_in_by_link(request.form.get("token", "")):
        return _ask_for_key(_USED_UP, 401)
    return redirect(url_for("dashboard.list_webhooks"))


def _ask_for_key(why: str, status: int) -> tuple[str, int]:
    return render_template("sign_in.html", next="", notice=why), status


def _is_local() -> bool:
    """Whether the request comes from this machine to a loopback server, and not through a proxy."""
    places = (services().settings.api_host, request.remote_addr or "", urlsplit(request.host_url).hostname or "")
    return all(map(is_loopback, places)) and not any(name in request.headers for name in _FORWARDED)


@blueprint.post("/sign-out")
def sign_out_now() -> Any:
    sign_out()
    return redirect(url_for("dashboard.sign_in_form"))


def _own_address(wanted: str) -> str:
    """The address to open after signing in: always a page of ours."""
    parts = urlsplit(wanted)
    own = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and not parts.netloc and not parts.scheme
    return wanted if own else url_for("dashboard.list_webhooks")
