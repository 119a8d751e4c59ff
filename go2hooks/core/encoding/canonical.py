"""Writes JSON exactly as JavaScript does.

Go2's own verifier serialises the parsed body again with `JSON.stringify` before it checks the HMAC. So the bytes that
we sign and send must equal `JSON.stringify(JSON.parse(bytes))`, byte for byte.
"""

import math
import re
from collections.abc import Iterable
from typing import Any, Final

import orjson

_SCALARS: Final = frozenset((str, type(None), bool))  # orjson and JSON.stringify write these alike
_FIRST_AFTER_DIGITS: Final = ":"  # a key at or above it in code point order cannot be an array index
_ARRAY_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,9}")
_ARRAY_INDEX_LIMIT: Final = 2**32 - 1
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_ESCAPED: Final = re.compile(r'[\x00-\x1f"\\\ud800-\udfff]')
_SHORT_ESCAPES: Final = {
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\f": "\\f",
    "\r": "\\r",
    '"': '\\"',
    "\\": "\\\\",
}
_LARGEST_PLAIN_EXPONENT: Final = 21  # JavaScript writes 1e21 and above with an exponent,
_SMALLEST_PLAIN_EXPONENT: Final = -6  # and what is below 1e-6


def dumps(value: Any) -> bytes:
    """The result of `JSON.stringify(value)`, in UTF-8.

    Accepts None, bool, int, float, str, list, tuple and dicts with string keys. As in JavaScript, every number is a
    double: an integer beyond 2^53 is rounded to one, and a number beyond the range of doubles becomes null. Raises
    TypeError for any other type.
    """
    if _is_plain(value):
        try:
            return orjson.dumps(value)
        except orjson.JSONEncodeError:  # a lone surrogate, or nested more deeply than orjson allows
            pass
    return _write(value).encode()


def _is_plain(value: Any) -> bool:
    """Whether orjson writes the same bytes as JavaScript: no numbers, and no key that JavaScript may move."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    if kind is dict:
        if value and not _keys_stay(value):
            return False
        items: Iterable[Any] = value.values()
    elif kind is list or kind is tuple:
        items = value
    else:
        return False
    for item in items:  # noqa: SIM110  # compiled, a loop is faster than `all`
        if type(item) not in _SCALARS and not _is_plain(item):
            return False
    return True


def _keys_stay(value: dict[Any, Any]) -> bool:
    for key in value:  # noqa: SIM110  # as above
        if not isinstance(key, str) or key < _FIRST_AFTER_DIGITS:  # `_write` refuses a key that is no string
            return False
    return True


def _write(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return _string(value)
        case int() | float():
            return _number(value)
        case dict():
            members = (f"{_string(key)}:{_write(item)}" for key, item in _in_javascript_order(value))
            return "{" + ",".join(members) + "}"
        case list() | tuple():
            return "[" + ",".join(map(_write, value)) + "]"
        case _:
            raise TypeError(f"JSON has no {type(value).__name__}")


def _string(text: str) -> str:
    return '"' + _ESCAPED.sub(_escape, _joined(text)) + '"'


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    return _SHORT_ESCAPES.get(character) or f"\\u{ord(character):04x}"


def _joined(text: str) -> str:
    """Join surrogate pairs: in JavaScript, whose strings are UTF-16, a pair is one character."""
    if _SURROGATE.search(text):
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return str(text)


def _in_javascript_order(value: dict[Any, Any]) -> list[tuple[str, Any]]:
    """Array indices in ascending order, then the other keys in insertion order."""
    members: dict[str, Any] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise TypeError(f"a JSON key is a string, not {type(key).__name__}")
        members[_joined(key)] = item
    indices = sorted((key for key in members if _is_array_index(key)), key=int)
    others = [key for key in members if not _is_array_index(key)]
    return [(key, members[key]) for key in (*indices, *others)]


def _is_array_index(key: str) -> bool:
    return _ARRAY_INDEX.fullmatch(key) is not None and int(key) < _ARRAY_INDEX_LIMIT


def _number(value: Any) -> str:
    """ECMA-262, Number::toString: the shortest digits that parse to the same double, in JavaScript's layout."""
    try:
        double = float(value)
    except OverflowError:
        return "null"
    if not math.isfinite(double):
        return "null"
    if double == 0:
        return "0"
    sign = "-" if double < 0 else ""
    digits, exponent = _shortest_digits(abs(double))
    return sign + _laid_out(digits, exponent)


def _shortest_digits(double: float) -> tuple[str, int]:
    """Digits without leading or trailing zeros, and n such that the value is 0.digits times 10^n."""
    mantissa, _, power = repr(double).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = whole + fraction
    stripped = digits.lstrip("0")
    exponent = len(whole) - (len(digits) - len(stripped)) + int(power or 0)
    return stripped.rstrip("0"), exponent


def _laid_out(digits: str, exponent: int) -> str:
    count = len(digits)
    if count <= exponent <= _LARGEST_PLAIN_EXPONENT:
        return digits + "0" * (exponent - count)
    if 0 < exponent <= _LARGEST_PLAIN_EXPONENT:
        return digits[:exponent] + "." + digits[exponent:]
    if _SMALLEST_PLAIN_EXPONENT < exponent <= 0:
        return "0." + "0" * -exponent + digits
    fraction = "." + digits[1:] if count > 1 else ""
    return f"{digits[0]}{fraction}e{exponent - 1:+d}"
