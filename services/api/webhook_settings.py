"""A webhook's optional settings: description, metadata, headers, rateLimit, maxConcurrency, filter."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, StringConstraints, WithJsonSchema

from go2hooks.codec import DATA_FIELDS
from go2hooks.core.domain.event import WILDCARD
from go2hooks.core.domain.filters import MAX_FIELDS, MAX_TEXT_CHARS, check_fields, compile_filter, is_storable
from go2hooks.core.errors import FilterError, HeaderError, SealError
from go2hooks.core.security import custom_headers
from go2hooks.postgres import webhooks
from go2hooks.postgres.audit import fingerprint
from go2hooks.postgres.secrets import Purpose
from go2hooks.postgres.session import Session
from go2hooks.postgres.webhooks import SettingColumn, WebhookRow
from services.api.bodies import Body
from services.api.context import services
from services.api.errors import invalid, webhook_not_found
from services.api.shapes.webhooks import SecretHeader, WebhookSettings

_STORABLE: Final = r"^[^\x00]*$"


@dataclass(frozen=True, slots=True)
class WebhookBounds:
    """The limits of a webhook's fields."""

    name_chars: int = 200
    events: int = 20
    description_chars: int = 500
    metadata_keys: int = 20
    metadata_key_chars: int = 40
    metadata_value_chars: int = 500
    slowest_per_s: float = 0.1  #: requests per second that a rate limit may be
    fastest_per_s: float = 1000.0
    concurrency: int = 1000  #: requests under way at once


BOUNDS: Final = WebhookBounds()


# --- what a caller may send


def _check_text(text: str) -> str:
    if not is_storable(text):
        raise ValueError("must not contain NUL")
    return text


def _check_metadata(metadata: dict[str, str]) -> dict[str, str]:
    if len(metadata) > BOUNDS.metadata_keys:
        raise ValueError(f"must not have more than {BOUNDS.metadata_keys} keys")
    for key, value in metadata.items():
        if not 1 <= len(key) <= BOUNDS.metadata_key_chars or not is_storable(key):
            raise ValueError(
                f"{_named(key)} must be a key of 1 to {BOUNDS.metadata_key_chars} characters, without NUL or half of a surrogate pair"
            )
        if len(value) > BOUNDS.metadata_value_chars or not is_storable(value):
            raise ValueError(
                f"{_named(key)} must have a value of at most {BOUNDS.metadata_value_chars} characters, without NUL"
            )
    return metadata


def _check_headers(headers: object) -> object:
    """`{"X-Tenant": "acme", "Authorization": {"value": "Bearer …", "secret": true}}`, in one form: value or None, and whether it is secret."""
    if headers is None:
        return None
    if not isinstance(headers, dict):
        raise ValueError("must be an object of header names and values")  # noqa: TRY004  # pydantic wants a ValueError
    values: dict[str, tuple[str | None, bool]] = {}
    for name, header in headers.items():
        try:
            custom_headers.check_name(name)
            value, is_secret = _value_of(header)
            if value is not None:
                custom_headers.check_value(value)
        except HeaderError as error:
            raise ValueError(f"{_named(name)} {error}") from None
        values[name] = value, is_secret
    try:
        custom_headers.check_together(list(values), sum(len(n) + len(v or "") for n, (v, _) in values.items()))
    except HeaderError as error:
        raise ValueError(str(error)) from None
    return values


def _value_of(header: object) -> tuple[str | None, bool]:
    if isinstance(header, str):
        return header, False
    if isinstance(header, dict) and set(header) <= {"value", "secret"}:
        value, is_secret = header.get("value"), header.get("secret", False)
        if isinstance(is_secret, bool) and (isinstance(value, str) or (value is None and is_secret)):
            return value, is_secret
    raise HeaderError('must be a string or {"value": …, "secret": true}')


def _whole(number: object) -> object:
    """Accept 2.0 as a whole number, since JSON has one type of number."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _check_filter(pattern: dict[str, Any]) -> dict[str, Any]:
    try:
        compile_filter(pattern)
    except FilterError as error:
        raise ValueError(str(error)) from None
    return pattern


def _named(name: str) -> str:
    return json.dumps(name[: BOUNDS.metadata_key_chars + 1])


_SCALAR: Final = {
    "anyOf": [
        {"type": "string", "maxLength": MAX_TEXT_CHARS, "pattern": _STORABLE},
        {"type": ["number", "boolean", "null"], "minimum": -1e15, "maximum": 1e15},
    ]
}


def _matcher_schema(kind: str, operand: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {kind: operand}, "required": [kind], "additionalProperties": False}


_FILTER_SCHEMA: Final = {
    "type": ["object", "null"],
    "minProperties": 1,
    "maxProperties": MAX_FIELDS,
    "propertyNames": {"enum": sorted({name for fields in DATA_FIELDS.values() for name in fields})},
    "additionalProperties": {
        "type": "array",
        "minItems": 1,
        "maxItems": 10,
        "items": {
            "anyOf": [
                _SCALAR,
                _matcher_schema("prefix", {"type": "string", "minLength": 1, "maxLength": 500, "pattern": _STORABLE}),
                _matcher_schema("exists", {"type": "boolean"}),
                _matcher_schema(
                    "anything-but",
                    {"anyOf": [_SCALAR, {"type": "array", "minItems": 1, "maxItems": 10, "items": _SCALAR}]},
                ),
            ]
        },
    },
    "examples": [{"domain": ["go2.gg"], "country": ["DE", "AT"], "slug": [{"prefix": "sale-"}]}],
}
_VALUE_SCHEMA: Final = {
    "type": "string",
    "pattern": custom_headers.VALUE_PATTERN,
    "maxLength": custom_headers.LIMITS.value_chars,
}
_HEADERS_SCHEMA: Final = {
    "type": ["object", "null"],
    "maxProperties": custom_headers.LIMITS.headers,
    "propertyNames": {"pattern": custom_headers.NAME_PATTERN, "maxLength": custom_headers.LIMITS.name_chars},
    "additionalProperties": {
        "anyOf": [
            _VALUE_SCHEMA,
            {
                "type": "object",
                "properties": {"value": _VALUE_SCHEMA, "secret": {"type": "boolean", "default": False}},
                "required": ["value"],
                "additionalProperties": False,
            },
            {
                "type": "object",
                "properties": {"value": {"type": "null"}, "secret": {"const": True}},
                "required": ["secret"],
                "additionalProperties": False,
            },
        ]
    },
    "examples": [{"X-Tenant": "acme", "Authorization": {"value": "Bearer abc", "secret": True}}],
}


class SettingsBody(Body):
    """Optional everywhere; null, which is what GET shows for what is not set, removes it."""

    description: Annotated[
        Annotated[str, StringConstraints(max_length=BOUNDS.description_chars), AfterValidator(_check_text)] | None,
        WithJsonSchema({"type": ["string", "null"], "maxLength": BOUNDS.description_chars, "pattern": _STORABLE}),
    ] = None
    """What you want to say about it: at most 500 characters."""
    metadata: Annotated[
        Annotated[dict[str, str], AfterValidator(_check_metadata)] | None,
        WithJsonSchema(
            {
                "type": ["object", "null"],
                "maxProperties": BOUNDS.metadata_keys,
                "propertyNames": {"minLength": 1, "maxLength": BOUNDS.metadata_key_chars, "pattern": _STORABLE},
                "additionalProperties": {
                    "type": "string",
                    "maxLength": BOUNDS.metadata_value_chars,
                    "pattern": _STORABLE,
                },
                "examples": [{"team": "growth"}],
            }
        ),
    ] = None
    """Your own: up to 20 keys of up to 40 characters, with strings of up to 500. Nothing here reads it."""
    headers: Annotated[
        dict[str, tuple[str | None, bool]] | None, BeforeValidator(_check_headers), WithJsonSchema(_HEADERS_SCHEMA)
    ] = Field(None, repr=False)
    """Sent with every request, up to 20: `{"X-Tenant": "acme", "Authorization": {"value": "Bearer …", "secret": true}}`. A
    secret value is never shown again; left out or null, it stays as it is."""
    rate_limit: Annotated[float, Field(ge=BOUNDS.slowest_per_s, le=BOUNDS.fastest_per_s)] | None = Field(
        None, alias="rateLimit"
    )
    """Requests per second at most, evenly spaced. What exceeds it waits its turn, without using an attempt."""
    max_concurrency: Annotated[Annotated[int, Field(ge=1, le=BOUNDS.concurrency)] | None, BeforeValidator(_whole)] = (
        Field(None, alias="maxConcurrency")
    )
    """Requests under way at once at most."""
    filter: Annotated[
        Annotated[dict[str, JsonValue], AfterValidator(_check_filter)] | None, WithJsonSchema(_FILTER_SCHEMA)
    ] = None
    """Only events whose `data` matches become deliveries. All fields must match, each by one of its alternatives: a value,
    `{"prefix": …}`, `{"anything-but": …}` or `{"exists": …}`. A field that an event type does not have does not match."""


# --- what it gets


def shown_settings(webhook: WebhookRow) -> WebhookSettings:
    return {
        "description": webhook.description,
        "metadata": webhook.metadata or {},
        "headers": {name: _SECRET if value is None else value for name, value in webhook.headers or ()},
        "rateLimit": webhook.rate_limit,
        "maxConcurrency": webhook.max_concurrency,
        "filter": webhook.filter,
    }


_SECRET: Final[SecretHeader] = {"value": None, "secret": True}


def apply_settings(conn: Session, webhook: WebhookRow, body: SettingsBody, account_id: str) -> WebhookRow:
    """Apply the settings, in the caller's transaction. Raises ApiError 422 for one that other fields of the webhook exclude."""
    named = body.model_fields_set & SettingsBody.model_fields.keys()
    columns: dict[SettingColumn, Any] = {name: getattr(body, name) or None for name in named}  # type: ignore[misc]  # they are called alike
    if body.headers is not None and "headers" in named:
        columns |= _headers(conn, webhook, body.headers, account_id)
    elif "headers" in named:
        columns["sealed_headers"] = None
    if columns:
        changed = webhooks.set_settings(conn, account_id, webhook.id, columns)
        if changed is None:
            raise webhook_not_found()
        webhook = changed
    if webhook.filter is not None:
        _check_fields(webhook.filter, webhook.events)
    return webhook


def _headers(
    conn: Session, webhook: WebhookRow, wanted: Mapping[str, tuple[str | None, bool]], account_id: str
) -> dict[SettingColumn, Any]:
    """The columns for the headers. An omitted secret value is kept. Raises ApiError 422 when there is none to keep."""
    box = services().secret_box
    kept = {} if all(value is not None for value, _ in wanted.values()) else _values(conn, webhook, account_id)
    values = {name: kept.get(name.lower()) if value is None else value for name, (value, _) in wanted.items()}
    missing = next((name for name, value in values.items() if value is None), None)
    if missing is not None:
        raise invalid({"headers": f"{_named(missing)} has no value that could be kept: give it one"})
    secrets = {name: values[name] for name, (_, is_secret) in wanted.items() if is_secret}
    return {
        "headers": [(name, None if is_secret else values[name]) for name, (_, is_secret) in wanted.items()] or None,
        "sealed_headers": box.seal(json.dumps(secrets), webhook.id, Purpose.HEADERS) if secrets else None,
    }


def told_headers(conn: Session, webhook: WebhookRow, account_id: str) -> dict[str, Any]:
    """The headers for the audit log. A secret one is shown by a fingerprint, so that a new value is visible."""
    shown = shown_settings(webhook)["headers"]
    if all(isinstance(value, str) for value in shown.values()):
        return dict(shown)
    values = _values(conn, webhook, account_id)
    return {name: value if isinstance(value, str) else _fingerprint(values, name) for name, value in shown.items()}


def _fingerprint(values: Mapping[str, str], name: str) -> dict[str, Any]:
    value = values.get(name.lower())
    return {"secret": True, "fingerprint": None if value is None else fingerprint(value)}


def _values(conn: Session, webhook: WebhookRow, account_id: str) -> dict[str, str]:
    """The webhook's present headers, by lower-case names. Secret ones that no key opens are left out."""
    values = {name.lower(): value for name, value in webhook.headers or () if value is not None}
    sealed = webhooks.sealed_headers(conn, account_id, webhook.id)
    try:
        opened = {} if sealed is None else json.loads(services().secret_box.open(sealed, webhook.id, Purpose.HEADERS))
    except SealError:
        opened = {}
    return values | {name.lower(): value for name, value in opened.items()}


def _check_fields(pattern: Mapping[str, Any], events: list[str]) -> None:
    """Check the filter's fields. An event type that this API does not know is not checked."""
    if WILDCARD in events:
        fields = DATA_FIELDS
    else:
        fields = {event: DATA_FIELDS[event] for event in events if event in DATA_FIELDS}
    try:
        check_fields(pattern, fields)
    except FilterError as error:
        raise invalid({"filter": str(error)}) from None
