"""Who is asking: `Authorization: Bearer <API key>`."""

from typing import Final

from flask import g, request

from go2hooks.postgres import api_keys
from services.api.context import services
from services.api.errors import ApiError

_SCHEME: Final = "bearer"
_REALM: Final = 'Bearer realm="Go2 Webhooks"'


def require_account() -> None:
    """Before each request of a blueprint: find the account, or answer 401; 429 to who fails or asks too often."""
    header = request.headers.get("Authorization", "")
    scheme, _, key = header.partition(" ")
    key = key.strip()
    if scheme.lower() != _SCHEME or not key:
        message = "Send your API key in the header Authorization: Bearer <API key>."
        raise ApiError(401, "unauthorized", message, headers={"WWW-Authenticate": _REALM})
    limits, source, key_hash = services().limits, request.remote_addr or "", api_keys.hash_key(key)
    limits.admit_login(source, key_hash)
    with services().pool.transaction() as conn:
        account_id = api_keys.account_of_key(conn, key)
    if account_id is None:
        limits.login_failed(source)
        headers = {"WWW-Authenticate": f'{_REALM}, error="invalid_token"'}
        raise ApiError(401, "invalid_api_key", "This API key is unknown or was revoked.", headers=headers)
    g.account_id = account_id
    g.quota = limits.admit_request(key_hash)
