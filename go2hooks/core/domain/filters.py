"""Filters: a webhook gets only those subscribed events whose `data` matches a pattern.

Patterns are a subset of EventBridge's: `{"country": ["DE", "AT"], "slug": [{"prefix": "sale-"}]}`. Every named field
must match (and); a field matches if one of its alternatives matches (or):

- a string, number, true, false or null: exactly this value. Numbers are compared by value: 1 equals 1.0, but not true.
- `{"prefix": "sale-"}`: a string with this prefix.
- `{"anything-but": "DE"}` or `{"anything-but": ["DE", null]}`: any value except these.
- `{"exists": true}`, `{"exists": false}`: the event has the field, or does not have it. A field that is null exists.

If an event does not have a field, only `{"exists": false}` matches. Of an array, one element must match.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from go2hooks.core.errors import FilterError

MAX_FIELDS: Final = 20
MAX_VALUES: Final = 200  #: in all fields together
MAX_TEXT_CHARS: Final = 500
MAX_NUMBER: Final = 2**53 - 1  #: JSON readers that use doubles change larger integers
_KNOWN: Final = "prefix, exists and anything-but"
_MISSING: Final = object()


class FieldFilter:
    """The compiled alternatives of one field."""

    __slots__ = ("absent", "excepted", "name", "prefixes", "present", "values")

    def __init__(self, name: str) -> None:
        self.name = name
        self.values: frozenset[object] = frozenset()  #: exact values, as given by `_key`
        self.prefixes: tuple[str, ...] = ()
        #: Any value except these; with several such alternatives, their intersection.
        self.excepted: frozenset[object] | None = None
        self.present = False  #: any value, as long as the field exists
        self.absent = False  #: the field does not exist

    def accepts(self, data: Mapping[str, Any]) -> bool:
        value = data.get(self.name, _MISSING)
        if value is _MISSING:
            return self.absent
        if self.present:
            return True
        if isinstance(value, list):
            return any(self._accepts_value(element) for element in value)
        return self._accepts_value(value)

    def _accepts_value(self, value: object) -> bool:
        if isinstance(value, str):
            if value in self.values or (self.prefixes and value.startswith(self.prefixes)):
                return True
            return self.excepted is not None and value not in self.excepted
        if value is not None and not isinstance(value, (bool, int, float)):
            return False  # an object: no alternative matches one
        key = _key(value)
        return key in self.values or (self.excepted is not None and key not in self.excepted)


class Filter:
    """A compiled pattern."""

    __slots__ = ("fields",)

    def __init__(self, fields: tuple[FieldFilter, ...]) -> None:
        self.fields = fields

    def matches(self, data: Mapping[str, Any]) -> bool:
        """Whether an event with this `data` passes."""
        for field in self.fields:  # noqa: SIM110  # compiled, a loop is quicker than a generator
            if not field.accepts(data):
                return False
        return True


def compile_filter(pattern: object) -> Filter:
    """Compile a pattern. Raises FilterError for an invalid one; the message names the field and the rule."""
    if not isinstance(pattern, dict):
        raise FilterError("must be an object of fields and what they may be")
    if not 1 <= len(pattern) <= MAX_FIELDS:
        raise FilterError(f"must name 1 to {MAX_FIELDS} fields; null removes the filter")
    left = MAX_VALUES
    fields: list[FieldFilter] = []
    for name, alternatives in pattern.items():
        compiled, taken = _compile_field(name, alternatives)
        left -= taken
        fields.append(compiled)
    if left < 0:
        raise FilterError(f"must not hold more than {MAX_VALUES} values in all")
    return Filter(tuple(fields))


def check_fields(pattern: Mapping[str, Any], fields_by_event: Mapping[str, Iterable[str]]) -> None:
    """Raise FilterError for a field that none of these events has; the message lists the fields that exist."""
    known = list(dict.fromkeys(name for fields in fields_by_event.values() for name in fields))
    unknown = [name for name in pattern if name not in known]
    if unknown:
        shown = ", ".join(repr(name[:50]) for name in unknown)
        raise FilterError(f"unknown: {shown}; the data of {', '.join(fields_by_event)} has {', '.join(known)}")


def _compile_field(name: str, alternatives: object) -> tuple[FieldFilter, int]:
    """The compiled field, and its number of values."""
    if not isinstance(alternatives, list) or not alternatives:
        raise FilterError(f"{_shown(name)} must be an array of at least one value or matcher")
    _checked(name, name)
    field = FieldFilter(name)
    values: set[object] = set()
    prefixes: list[str] = []
    count = 0
    for alternative in alternatives:
        if not isinstance(alternative, dict):
            values.add(_key(_checked(name, alternative)))
            count += 1
            continue
        kind, operand = _matcher(name, alternative)
        if kind == "prefix":
            prefixes.append(_checked_prefix(name, operand))
            count += 1
        elif kind == "exists":
            _allow_presence(field, operand)
            count += 1
        else:
            excepted = _excepted(name, operand)
            field.excepted = excepted if field.excepted is None else field.excepted & excepted
            count += len(excepted)
    field.values, field.prefixes = frozenset(values), tuple(prefixes)
    return field, count


def _matcher(name: str, alternative: dict[Any, Any]) -> tuple[str, object]:
    if len(alternative) == 1:
        ((kind, operand),) = alternative.items()
        if kind in ("prefix", "exists", "anything-but"):
            return kind, operand
    shown = ", ".join(str(kind)[:20] for kind in list(alternative)[:3])
    raise FilterError(f"{_shown(name)} has a matcher {{{shown}}}; known are {_KNOWN}, one to a matcher")


def _checked_prefix(name: str, operand: object) -> str:
    if not isinstance(operand, str) or not operand:
        raise FilterError(f"{_shown(name)}: prefix must be a string that is not empty")
    _checked(name, operand)
    return operand


def _allow_presence(field: FieldFilter, operand: object) -> None:
    if not isinstance(operand, bool):
        raise FilterError(f"{_shown(field.name)}: exists must be true or false")
    if operand:
        field.present = True
    else:
        field.absent = True


def _excepted(name: str, operand: object) -> frozenset[object]:
    values: list[Any] = operand if isinstance(operand, list) else [operand]
    if not values:
        raise FilterError(f"{_shown(name)}: anything-but must name at least one value")
    return frozenset([_key(_checked(name, value)) for value in values])


def _checked(name: str, value: object) -> object:
    """The value, if an event may have it. Raises FilterError."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if len(value) > MAX_TEXT_CHARS:
            raise FilterError(
                f"{_shown(name)} has a string of {len(value)} characters; at most {MAX_TEXT_CHARS} are allowed"
            )
        if not is_storable(value):
            raise FilterError(f"{_shown(name)} has a string with NUL or half of a surrogate pair")
        return value
    if isinstance(value, (int, float)):
        if not -MAX_NUMBER <= value <= MAX_NUMBER:
            raise FilterError(f"{_shown(name)} has a number beyond {MAX_NUMBER}, which not every JSON reader keeps")
        return value
    raise FilterError(f"{_shown(name)} must hold strings, numbers, true, false, null or matchers ({_KNOWN})")


def is_storable(text: str) -> bool:
    """Whether Postgres can store it: it has no NUL and no half of a surrogate pair."""
    return "\0" not in text and text == text.encode(errors="ignore").decode()


def _key(value: object) -> object:
    """The value as a key of a set. It distinguishes true from 1, which are equal in Python."""
    return (value,) if isinstance(value, bool) else value


def _shown(name: str) -> str:
    return json.dumps(name[:50])
