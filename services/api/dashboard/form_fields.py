"""A webhook as its form shows it, and the form as a body for the REST resource, which validates it."""

import json
import math
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, Final, NamedTuple, TypedDict

from werkzeug.datastructures import MultiDict

from go2hooks.core.errors import HeaderError
from go2hooks.core.security.custom_headers import check_together
from services.api.bodies import NotJsonError, parse_json

#: The labels of the form's fields, also used in the list of faults.
LABELS: Final = {
    "name": "Name",
    "url": "URL",
    "description": "Description",
    "events": "Events",
    "filter": "Filter",
    "headers": "Headers",
    "metadata": "Metadata",
    "rateLimit": "Requests per second",
    "maxConcurrency": "Requests at once",
}
FILTER_EXAMPLES: Final = {
    '{"country": ["DE", "AT"]}': "from Germany or Austria",
    '{"domain": ["go2.gg"], "slug": [{"prefix": "sale-"}]}': "of one domain, and of links that begin with sale-",
    '{"device": [{"anything-but": "tablet"}]}': "from any device but a tablet",
    '{"country": [{"anything-but": null}]}': "from a country that is known",
}
_SECRET: Final = "secret"  # noqa: S105  # a kind of header
_UNREADABLE: Final = "unreadable"  # what no field that is an object may be


class Header(NamedTuple):
    """One row of the form."""

    name: str
    value: str
    kind: str  #: `secret`, or empty


class Values(TypedDict):
    """The fields' values as typed, valid or not."""

    name: str
    url: str
    description: str
    events: list[str]
    filter: str
    headers: list[Header]
    metadata: list[tuple[str, str]]
    rateLimit: str
    maxConcurrency: str


def typed(form: "MultiDict[str, str]") -> Values:
    """The posted values; empty rows are left out."""

    def text(name: str) -> str:
        return form.get(name, "").replace("\r\n", "\n").strip()

    rows = zip(*(form.getlist(f"header_{part}") for part in ("name", "value", "kind")), strict=False)
    headers = [Header(name.strip(), value, kind) for name, value, kind in rows if name.strip() or value]
    pairs = zip(form.getlist("metadata_key"), form.getlist("metadata_value"), strict=False)
    return {
        "name": text("name"), "url": text("url"), "description": text("description"), "events": form.getlist("events"),
        "filter": text("filter"), "headers": headers, "metadata": [pair for pair in pairs if any(pair)],
        "rateLimit": text("rateLimit"), "maxConcurrency": text("maxConcurrency"),
    }  # fmt: skip


def shown(webhook: Mapping[str, Any]) -> Values:
    """The values of an existing webhook. The value of a secret header is empty."""
    headers = [
        Header(name, value, "") if isinstance(value, str) else Header(name, "", _SECRET)
        for name, value in webhook["headers"].items()
    ]
    return {
        "name": webhook["name"], "url": webhook["url"], "description": webhook["description"] or "",
        "events": webhook["events"], "filter": _pretty(webhook["filter"]), "headers": headers,
        "metadata": list(webhook["metadata"].items()), "rateLimit": _written(webhook["rateLimit"]),
        "maxConcurrency": _written(webhook["maxConcurrency"]),
    }  # fmt: skip


EMPTY: Final = typed(MultiDict())


def as_body(values: Values) -> tuple[dict[str, Any], dict[str, str]]:
    """The body, and the faults of fields that JSON cannot express. Their values are ones that the resource refuses too."""
    faults: dict[str, str] = {}
    body = {
        "name": values["name"], "url": values["url"], "events": values["events"],
        "description": values["description"] or None,
        "rateLimit": _number(values["rateLimit"]), "maxConcurrency": _number(values["maxConcurrency"]),
    }  # fmt: skip
    for name, read in (("filter", _filter), ("headers", _headers), ("metadata", _metadata)):
        try:
            body[name] = read(values)
        except ValueError as error:
            body[name], faults[name] = _UNREADABLE, str(error)
    return body, faults


def version(webhook: Mapping[str, Any]) -> str:
    """A version that changes with the owner's changes, not with failed deliveries."""
    return sha256(json.dumps([shown(webhook), webhook["updatedAt"]]).encode()).hexdigest()


def differences(now: Values, wanted: Values) -> list[tuple[str, str]]:
    """The fields that differ from `wanted`, by their labels, with their present values."""
    return [(LABELS[name], _told(now[name]) or "empty") for name in LABELS if now[name] != wanted[name]]  # type: ignore[literal-required]


def _filter(values: Values) -> Any:
    if not values["filter"]:
        return None
    try:
        return parse_json(values["filter"].encode("utf-8", "surrogatepass"))
    except NotJsonError as error:
        raise ValueError(f"is not JSON: {error}") from None


def _headers(values: Values) -> dict[str, Any] | None:
    """The headers of the body. A secret value that was left empty stays unchanged."""
    names = [header.name for header in values["headers"]]
    if len(set(names)) != len(names):
        try:
            check_together(names, 0)
        except HeaderError as error:
            raise ValueError(str(error)) from None
    return {
        name: {"value": value or None, "secret": True} if kind == _SECRET else value
        for name, value, kind in values["headers"]
    } or None


def _metadata(values: Values) -> dict[str, str] | None:
    metadata = dict(values["metadata"])
    if len(metadata) != len(values["metadata"]):
        raise ValueError("must not have a key twice")
    return metadata or None


def _number(text: str) -> Any:
    """A number; None for nothing; other text unchanged, so that the resource refuses it."""
    try:
        number = float(text)
    except ValueError:
        return text or None
    if not math.isfinite(number):
        return text
    return int(number) if number.is_integer() else number


def _written(number: float | None) -> str:
    return "" if number is None else f"{number:g}"


def _pretty(value: Any) -> str:
    return "" if value is None else json.dumps(value, indent=2, ensure_ascii=False)


def _told(value: str | Iterable[Any]) -> str:
    if isinstance(value, str):
        return value
    return ", ".join(map(_told_item, value))


def _told_item(item: Any) -> str:
    match item:
        case Header(name, _, "secret"):
            return f"{name}: (secret)"
        case (name, value, *_):
            return f"{name}: {value}"
        case _:
            return str(item)
