"""Authentication by `Authorization: Bearer <API key>`, and authorization by the key's scopes."""

from functools import partial
from typing import Final

import psycopg
import structlog
from flask import Response, after_this_request, g, request

from go2hooks.postgres import api_keys
from go2hooks.postgres.api_keys import KnownKey, Scope
from go2hooks.postgres.pool import Pool
from services.api.answers import iso
from services.api.context import services
from services.api.errors import ApiError

log = structlog.get_logger(__name__)

#: In a request's environment: the key of the dashboard's session. No client can set it: headers are named HTTP_….
SIGNED_IN: Final = "go2hooks.signed_in"
_SCHEME: Final = "bearer"
_REALM: Final = 'Bearer realm="Go2 Webhooks"'
_READING: Final = ("GET", "HEAD")


def require_account(scope: Scope | None = None) -> None:
    """Before each request of a blueprint: find the account, or answer 401; 429 to who fails or asks too often.

    403 to a key without the scope: by default that which the method needs, to read or to write.
    """
    known: KnownKey | None = request.environ.get(SIGNED_IN)
    if known is None:
        known = _log_in_by_header()
    g.account_id, g.key_id = known.account_id, known.id
    _note_use(known)
    _require_scope(known, scope or (Scope.READ if request.method in _READING else Scope.WRITE))


def _log_in_by_header() -> KnownKey:
    header = request.headers.get("Authorization", "")
    scheme, _, key = header.partition(" ")
    key = key.strip()
    if scheme.lower() != _SCHEME or not key:
        message = "Send your API key in the header Authorization: Bearer <API key>."
        raise ApiError(401, "unauthorized", message, headers={"WWW-Authenticate": _REALM})
    known = log_in(key)
    g.quota = services().limits.admit_request(api_keys.hash_key(key))
    return known


def log_in(key: str) -> KnownKey:
    """Find the key. Raises ApiError 401; 429 when its source has failed too often."""
    limits, source = services().limits, request.remote_addr or ""
    limits.admit_login(source, api_keys.hash_key(key))
    with services().pool.transaction() as conn:
        known = api_keys.look_up(conn, key)
    if known is None or known.has_expired:
        limits.login_failed(source)
        raise _invalid_key(known)
    return known


def _invalid_key(known: KnownKey | None) -> ApiError:
    why = "is unknown or was revoked" if known is None else f"expired at {iso(known.expires_at)}"
    headers = {"WWW-Authenticate": f'{_REALM}, error="invalid_token"'}
    return ApiError(401, "invalid_api_key", f"This API key {why}.", headers=headers)


def _require_scope(known: KnownKey, scope: Scope) -> None:
    if not known.may(scope):
        message = f"This needs an API key with the scope {scope}; yours has {', '.join(known.scopes)}."
        headers = {"WWW-Authenticate": f'{_REALM}, error="insufficient_scope", scope="{scope}"'}
        raise ApiError(403, "insufficient_scope", message, headers=headers)


def _note_use(known: KnownKey) -> None:
    """Record the key's use once a minute, after the answer is written: no request waits for it."""
    if not known.is_use_to_note:
        return

    @after_this_request
    def then(response: Response) -> Response:
        response.call_on_close(partial(_write_use, services().pool, known.id))
        return response


def _write_use(pool: Pool, key_id: str) -> None:
    try:
        with pool.transaction() as conn:
            api_keys.note_use(conn, key_id)
    except psycopg.Error as error:  # the next request tries again
        log.warning("the use of a key was not noted", key=key_id, error=type(error).__name__)
