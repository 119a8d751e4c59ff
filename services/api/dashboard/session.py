"""The session: a signed cookie names the API key, and each request checks that the key is still valid."""

import hashlib
import hmac
import time
from datetime import timedelta
from typing import Final, cast

from flask import Flask, g, request, session
from flask.sessions import SecureCookieSessionInterface
from flask_wtf.csrf import CSRFProtect

from go2hooks.postgres import api_keys, sign_in_links
from go2hooks.postgres.api_keys import KnownKey, Scope
from go2hooks.settings import Settings
from services.api.auth import log_in
from services.api.context import services

LIFETIME: Final = timedelta(hours=12)
_PURPOSE: Final = b"go2hooks dashboard session"
_COOKIE: Final = "go2hooks_session"

csrf: Final = CSRFProtect()


def came_by_https() -> bool:
    """Whether the browser used https, to us or to a proxy in front of us."""
    return request.is_secure or request.headers.get("X-Forwarded-Proto") == "https"


class _Cookies(SecureCookieSessionInterface):
    """Secure cookies if the page came by https; locally there is no https.

    A proxy tells it by a header; a client that forges it only restricts its own cookie.
    """

    def get_cookie_secure(self, app: Flask) -> bool:  # noqa: ARG002  # Flask's signature
        return came_by_https()


def register_sessions(app: Flask, settings: Settings) -> None:
    """Cookies are signed with keys derived from the encryption keys: all API processes read them, and keys can rotate."""
    first, *older = (_derived(key) for key in settings.encryption_keys())
    app.secret_key = first
    app.session_interface = _Cookies()
    app.config.update(
        SECRET_KEY_FALLBACKS=older,
        SESSION_COOKIE_NAME=_COOKIE,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Strict",
        PERMANENT_SESSION_LIFETIME=LIFETIME,
        WTF_CSRF_CHECK_DEFAULT=False,  # the REST resources take no cookie
        WTF_CSRF_TIME_LIMIT=None,  # as long as the session
        WTF_CSRF_SSL_STRICT=False,  # it would ask for a Referer, which our pages do not send
    )
    csrf.init_app(app)


def _derived(key: bytes) -> bytes:
    return hmac.digest(key, _PURPOSE, hashlib.sha256)


def sign_in(key: str) -> None:
    """Begin a new session with this key. Raises ApiError 401 or 429."""
    _begin(log_in(key))


def sign_in_by_link(token: str) -> bool:
    """Begin a new session by a token, unless it was used, has expired, or its key is invalid."""
    with services().pool.transaction() as conn:
        key_id = sign_in_links.use(conn, token)
        known = None if key_id is None else api_keys.look_up_id(conn, key_id)
    if known is None or known.has_expired:
        return False
    _begin(known)
    return True


def _begin(known: KnownKey) -> None:
    """Begin a new session. The old one is discarded, against session fixation."""
    session.clear()
    session.permanent = True
    session["key"], session["until"] = known.id, time.time() + LIFETIME.total_seconds()


def sign_out() -> None:
    session.clear()


def signed_in() -> KnownKey | None:
    """The session's key, if it is still valid."""
    if session.get("until", 0.0) < time.time():
        return None
    with services().pool.transaction() as conn:
        known = api_keys.look_up_id(conn, session["key"])
    return None if known is None or known.has_expired else known


def operates(known: KnownKey) -> bool:
    """Whether this is an admin key of the operators' account, which may see all accounts."""
    account_id = services().settings.operators_account
    return account_id is not None and known.account_id == account_id and known.may(Scope.ADMIN)


def key() -> KnownKey:
    """The session's key, in a request that is signed in."""
    return cast("KnownKey", g.dashboard_key)
