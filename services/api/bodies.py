"""Validate what a caller sent, and name each fault."""

import codecs
import json
from collections.abc import Sequence
from typing import Any, ClassVar, Final, NoReturn, TypeVar

from flask import request
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from services.api.context import services
from services.api.errors import ApiError, invalid

_SENTENCES: Final = {
    "missing": "is required",
    "extra_forbidden": "is not a known field",
    "string_type": "must be a string",
    "string_unicode": "must not contain half of a surrogate pair",
    "string_too_short": "must not be empty",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be an array",
    "dict_type": "must be an object",
    "float_type": "must be a number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
}


class Body(BaseModel):
    """A request body: JSON types as they are, no field that we don't know. The string below a field describes it."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True)
    may_be_missing: ClassVar[bool] = False
    media_types: ClassVar[tuple[str, ...]] = ("application/json",)


class Query(BaseModel):
    """A query string: everything arrives as text."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def one_of(choices: Sequence[str]) -> AfterValidator:
    """A validator for a text that must be one of these; its error lists them."""

    def check(text: str) -> str:
        if text not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return text

    return AfterValidator(check)


_B = TypeVar("_B", bound=Body)
_Q = TypeVar("_Q", bound=Query)


def read_body(model: type[_B]) -> _B:
    """The request's JSON as a model. Raises ApiError: 400, 413, 415 or 422."""
    raw = request.get_data()
    if model.may_be_missing and not raw:
        return _validate(model, {})
    if request.mimetype not in model.media_types or request.headers.get("Content-Encoding", "identity") != "identity":
        raise ApiError(
            415,
            "unsupported_media_type",
            f"The body must be JSON, sent as {' or '.join(model.media_types)}, not compressed.",
        )
    try:
        value = parse_json(raw)
    except NotJsonError as error:
        raise ApiError(400, "malformed_json", f"The body is not valid JSON: {error}.") from None
    return _validate(model, value)


def read_query(model: type[_Q]) -> _Q:
    """The request's query string as a model. Raises ApiError 422."""
    repeated = {name: "is given more than once" for name, values in request.args.lists() if len(values) > 1}
    if repeated:
        raise invalid(repeated)
    return _validate(model, request.args.to_dict())


class NotJsonError(ValueError):
    """The text is no JSON. The message follows a colon."""


def parse_json(raw: bytes) -> Any:
    """Strict JSON: RFC 8259, in UTF-8, no NaN, no key twice (readers differ in which one counts). Raises NotJsonError."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise NotJsonError("it is UTF-16, not UTF-8")
    try:
        return json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_once, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise NotJsonError("it is not UTF-8") from None
    except RecursionError:
        raise NotJsonError("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        what = f"{error.msg[:1].lower()}{error.msg[1:]}"
        raise NotJsonError(f"{what} at line {error.lineno}, column {error.colno}") from None
    except NotJsonError:
        raise
    except ValueError:  # a number of thousands of digits
        raise NotJsonError("it holds a number that is too long") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) != len(pairs):
        raise NotJsonError("an object has the same key twice")
    return names


def _no_constant(name: str) -> NoReturn:
    raise NotJsonError(f"{name} is not JSON")


_M = TypeVar("_M", bound=BaseModel)


def _validate(model: type[_M], value: Any) -> _M:
    if not isinstance(value, dict):
        raise ApiError(422, "validation_failed", "The body must be a JSON object.")
    try:
        return model.model_validate(value, context=services().settings)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)[:20]
    raise invalid({_field(fault["loc"]): _sentence(fault["type"], fault["msg"]) for fault in faults})


def _field(location: tuple[int | str, ...]) -> str:
    """`events.1`; for a rule about several fields, `body`."""
    return ".".join(map(str, location))[:100] or "body"


def _sentence(kind: str, message: str) -> str:
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    return _SENTENCES.get(kind, message)
