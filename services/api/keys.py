"""`/keys`: the account's API keys, for keys with the scope `admin`."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from flask import Blueprint, Response, request, url_for
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, WithJsonSchema

from go2hooks.postgres import accounts, api_keys
from go2hooks.postgres.api_keys import ALL_SCOPES, NewKey, Scope
from go2hooks.postgres.session import Session
from services.api.answers import iso, success
from services.api.auth import require_account
from services.api.bodies import Body
from services.api.context import account_id, actor, services, transaction
from services.api.deliveries import read_time
from services.api.errors import ApiError
from services.api.operations import Returns, operation
from services.api.shapes.answers import PageMeta
from services.api.shapes.fields import KeyScope
from services.api.shapes.keys import ApiKey, ApiKeyShown, DeletedKey
from services.api.webhooks import Name, PageQuery

KEY_ID: Final = re.compile(r"key_[0-9A-Za-z]{1,64}")
_MAX_KEYS: Final = 1000


def _admit() -> None:
    require_account(Scope.ADMIN)
    key_id = (request.view_args or {}).get("key_id")
    if key_id is not None and not KEY_ID.fullmatch(key_id):
        raise _key_not_found()


blueprint = Blueprint("keys", __name__, url_prefix="/api/v1/keys")
blueprint.before_request(_admit)


def _check_scopes(scopes: list[str]) -> list[str]:
    unknown = [name for name in dict.fromkeys(scopes) if name not in ALL_SCOPES]
    if unknown or not scopes:
        raise ValueError(f"must name some of {', '.join(ALL_SCOPES)}, and nothing else")
    if len(set(scopes)) != len(scopes):
        raise ValueError("must not name a scope twice")
    return scopes


def _read_end(text: Any) -> datetime:
    if not isinstance(text, str):
        raise ValueError("must be a time such as 2024-01-01T12:00:00Z, or null")  # noqa: TRY004  # pydantic's
    end = read_time(text)
    if end <= datetime.now(UTC):
        raise ValueError("must lie in the future")
    return end


class CreateKeyBody(Body):
    """POST /keys. `write` includes `read`, `admin` both. Without `expiresAt` the key is good until it is deleted."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "Dashboard", "scopes": ["read"], "expiresAt": "2999-01-01T00:00:00Z"}],
        }
    )
    name: Name
    """What it is for: 1 to 200 characters."""
    scopes: Annotated[
        list[KeyScope],
        AfterValidator(_check_scopes),
        Field(json_schema_extra={"minItems": 1, "maxItems": len(ALL_SCOPES), "uniqueItems": True}),
    ]
    """What it may do: `write` includes `read`, `admin` both."""
    expires_at: (
        Annotated[
            datetime,
            BeforeValidator(_read_end),
            WithJsonSchema({"type": "string", "format": "date-time"}),
        ]
        | None
    ) = Field(None, alias="expiresAt")
    """Until when it is good, in the future; null, or left out: until it is deleted."""


def _shown(key: api_keys.StoredKey) -> ApiKey:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": key.scopes,
        "expiresAt": iso(key.expires_at),
        "lastUsedAt": iso(key.last_used_at),
        "createdAt": iso(key.created_at),
    }


@blueprint.get("")
@operation("The account's API keys", Returns(list[ApiKey], meta=PageMeta))
def list_keys(query: PageQuery) -> Response:
    """Oldest first; those that have expired too, but not those that were deleted."""
    with services().pool.transaction() as conn:
        keys = api_keys.standing_keys(conn, account_id())
    before = (query.page - 1) * query.per_page
    page = keys[before : before + query.per_page]
    meta: PageMeta = {
        "page": query.page,
        "perPage": query.per_page,
        "total": len(keys),
        "hasMore": before + query.per_page < len(keys),
    }
    return success([_shown(key) for key in page], meta=meta)


@blueprint.post("")
@operation("Make an API key", Returns(ApiKeyShown, 201, has_location=True), errors=(409,))
def create_key(body: CreateKeyBody) -> Response:
    """The answer shows the key, this once."""
    new = NewKey(account_id(), body.name, [Scope(each) for each in body.scopes], body.expires_at)
    with transaction() as conn:
        accounts.lock(conn, account_id())
        if len(api_keys.standing_keys(conn, account_id())) >= _MAX_KEYS:
            raise ApiError(409, "key_limit_reached", f"Your account has {_MAX_KEYS} keys already, which is the limit.")
        created = api_keys.make_key(conn, new, actor())
        shown: ApiKeyShown = {**_shown(_own_key(conn, created.id)), "key": created.key}
        return success(shown, 201, location=url_for("keys.get_key", key_id=created.id))


@blueprint.get("/<key_id>")
@operation("An API key", Returns(ApiKey))
def get_key(key_id: str) -> Response:
    """Without the key itself, which only creating it shows."""
    with services().pool.transaction() as conn:
        return success(_shown(_own_key(conn, key_id)))


@blueprint.delete("/<key_id>")
@operation("Revoke an API key", Returns(DeletedKey), errors=(409,))
def delete_key(key_id: str) -> Response:
    """It opens nothing from now on. A key may delete itself, but not the account's last key with the scope `admin`."""
    deleted: DeletedKey = {"id": key_id, "deleted": True}
    with transaction() as conn:
        accounts.lock(conn, account_id())
        key = _own_key(conn, key_id)
        if Scope.ADMIN in key.scopes and not api_keys.has_other_admin(conn, account_id(), key_id):
            message = "This is your account's last key with the scope admin: make another before you delete it."
            raise ApiError(409, "last_admin_key", message)
        api_keys.revoke_key(conn, key_id, actor())
        return success(deleted)


def _own_key(conn: Session, key_id: str) -> api_keys.StoredKey:
    key = next((key for key in api_keys.standing_keys(conn, account_id()) if key.id == key_id), None)
    if key is None:
        raise _key_not_found()
    return key


def _key_not_found() -> ApiError:
    return ApiError(404, "key_not_found", "Your account has no API key with this id.")
