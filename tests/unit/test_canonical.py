"""Canonical JSON is what JavaScript writes, bit for bit."""

import json
import math
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from go2hooks.core.encoding import canonical
from go2hooks.core.encoding.canonical import dumps

Oracle = Callable[[dict[str, str]], str]

VECTORS = json.loads((Path(__file__).parent / "vectors" / "canonical.json").read_text(encoding="utf-8"))

texts = st.text(st.characters(exclude_categories=()))  # lone surrogates included
numbers = st.one_of(
    st.integers(),
    st.integers(-(10**25), 10**25),
    st.floats(allow_nan=False, allow_infinity=False),
    st.builds(lambda digits, power: float(f"{digits}e{power}"), st.integers(-(10**18), 10**18), st.integers(-30, 10)),
)
keys = st.one_of(texts, st.integers(0, 2**33).map(str), st.sampled_from(["00", "-1", "1.0", "", "__proto__", "٣"]))
scalars = st.one_of(st.none(), st.booleans(), texts, numbers)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(keys, inner, max_size=6), max_leaves=20
)
plain_data = st.dictionaries(
    st.from_regex("[a-zA-Z_][a-zA-Z]{0,8}", fullmatch=True),
    st.none() | st.booleans() | st.text() | st.lists(st.text(), max_size=3),
)


@given(values)
@settings(max_examples=3 * settings.default.max_examples)
@example({"b": 1, "10": 2, "9": 3, "4294967295": 4, "4294967294": 5})
@example({"\ud83d\ude00": 1, "😀": 2})
@example([1e21, 1e-7, 123456789012345680000, 5e-324, -0.0, 0.1 + 0.2, 2**53 + 1, 10**400])
def test_every_value_is_written_as_javascript_writes_it(javascript: Oracle, value: Any) -> None:
    assert dumps(value).decode() == javascript({"text": json.dumps(value)})


@given(plain_data)
def test_the_fast_path_writes_what_javascript_writes(javascript: Oracle, data: dict[str, Any]) -> None:
    assert canonical._is_plain(data)
    assert dumps(data).decode() == javascript({"text": json.dumps(data)})


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["text"][:30].encode().hex()[:20])
def test_vectors_that_node_made(vector: dict[str, str]) -> None:
    """The same check for machines without node."""
    assert dumps(json.loads(vector["text"])).decode() == vector["stringified"]


@given(values)
def test_writing_what_was_read_back_changes_nothing(value: Any) -> None:
    once = dumps(value)
    assert dumps(json.loads(once)) == once


@given(plain_data)
def test_both_paths_agree(data: dict[str, Any]) -> None:
    assert dumps(data) == canonical._write(data).encode()


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_reads_back_as_the_same_double(number: float) -> None:
    assert float(json.loads(dumps(number))) == number


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 10**400])
def test_what_no_finite_double_holds_becomes_null(number: float) -> None:
    assert dumps({"n": number}) == b'{"n":null}'


@pytest.mark.parametrize("value", [b"bytes", {1: "a"}, {"a": object()}, {"a": 1, 2: "b"}, [{3}]])
def test_what_json_cannot_hold_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError, match="JSON"):
        dumps(value)


def test_names_and_tuples_are_written_as_strings_and_arrays() -> None:
    class Name(StrEnum):
        CLICK = "click"

    assert dumps({"event": Name.CLICK, "n": (1, Name.CLICK)}) == b'{"event":"click","n":[1,"click"]}'


def test_a_value_deeper_than_the_fast_path_goes_is_still_written() -> None:
    value: Any = "leaf"
    for _ in range(300):
        value = [value]
    assert dumps(value) == b"[" * 300 + b'"leaf"' + b"]" * 300
