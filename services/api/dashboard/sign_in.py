"""Signing in with an API key, and out."""

from typing import Any
from urllib.parse import urlsplit

from flask import redirect, render_template, request, url_for

from services.api.dashboard.blueprint import blueprint
from services.api.dashboard.session import sign_in, sign_out
from services.api.errors import ApiError


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
