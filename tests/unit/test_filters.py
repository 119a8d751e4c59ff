"""Filters against a plain reading of their rules, and what is refused as a filter."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from go2hooks.core.domain.filters import MAX_FIELDS, MAX_TEXT_CHARS, MAX_VALUES, check_fields, compile_filter
from go2hooks.core.errors import FilterError

NAMES = ("domain", "country", "slug", "changes")
texts = st.sampled_from(["", "sale-", "sale-1", "DE", "1", "true", "null"])
scalars = st.one_of(texts, st.sampled_from([0, 1, 1.0, 2.5, -3, True, False, None]))
alternatives = st.one_of(
    scalars,
    st.builds(lambda text: {"prefix": text}, texts.filter(bool)),
    st.builds(lambda there: {"exists": there}, st.booleans()),
    st.builds(lambda values: {"anything-but": values}, st.one_of(scalars, st.lists(scalars, min_size=1, max_size=3))),
)
patterns = st.dictionaries(st.sampled_from(NAMES), st.lists(alternatives, min_size=1, max_size=4), min_size=1)
events = st.dictionaries(st.sampled_from(NAMES), st.one_of(scalars, st.lists(scalars, max_size=3)))


def same(value, other):
    """Equal in JSON."""
    return isinstance(value, bool) == isinstance(other, bool) and value == other


def accepts(alternative, value):
    match alternative:
        case {"prefix": prefix}:
            return isinstance(value, str) and value.startswith(prefix)
        case {"exists": there}:
            return there
        case {"anything-but": list(excepted)}:
            return not any(same(value, other) for other in excepted)
        case {"anything-but": excepted}:
            return not same(value, excepted)
        case _:
            return same(alternative, value)


def passes(pattern, data):
    """What the filter's docstring says, word by word."""

    def field(name, alternatives):
        if name not in data:
            return {"exists": False} in alternatives
        if {"exists": True} in alternatives:
            return True
        values = data[name] if isinstance(data[name], list) else [data[name]]
        return any(accepts(a, v) for v in values for a in alternatives if a != {"exists": False})

    return all(field(name, alternatives) for name, alternatives in pattern.items())


@given(pattern=patterns, data=events)
def test_a_filter_lets_through_what_its_rules_say(pattern, data):
    assert compile_filter(pattern).matches(data) == passes(pattern, data)


@given(pattern=patterns, data=events)
def test_a_filter_means_the_same_after_json(pattern, data):
    assert compile_filter(json.loads(json.dumps(pattern))).matches(data) == compile_filter(pattern).matches(data)


@pytest.mark.parametrize(
    ("pattern", "data", "expected"),
    [
        ({"domain": ["go2.gg"], "country": ["DE", "AT"]}, {"domain": "go2.gg", "country": "AT"}, True),
        ({"domain": ["go2.gg"], "country": ["DE", "AT"]}, {"domain": "go2.gg", "country": "FR"}, False),
        ({"slug": [{"prefix": "sale-"}]}, {"slug": "sale-1"}, True),
        ({"slug": [{"prefix": "sale-"}]}, {"slug": "for-sale-1"}, False),
        ({"country": [{"anything-but": [None, "DE"]}]}, {"country": None}, False),
        ({"country": [{"anything-but": [None, "DE"]}]}, {"country": "FR"}, True),
        ({"country": [{"anything-but": "DE"}]}, {}, False),
        ({"country": [None]}, {"country": None}, True),
        ({"country": [{"exists": True}]}, {"country": None}, True),
        ({"createdBy": [{"exists": False}]}, {"updatedBy": "usr_1"}, True),
        ({"changes": ["slug"]}, {"changes": ["domain", "slug"]}, True),
        ({"changes": ["slug"]}, {"changes": []}, False),
        ({"number": [1]}, {"number": True}, False),
        ({"number": [{"anything-but": 1}]}, {"number": {"an": "object"}}, False),
    ],
)
def test_what_the_guide_says_of_filters_is_so(pattern, data, expected):
    assert compile_filter(pattern).matches(data) is expected


@pytest.mark.parametrize(
    ("pattern", "rule"),
    [
        ([], "must be an object"),
        ({}, "must name 1 to 20 fields"),
        ({str(n): [1] for n in range(MAX_FIELDS + 1)}, "must name 1 to 20 fields"),
        ({"slug": "launch"}, '"slug" must be an array'),
        ({"slug": []}, '"slug" must be an array'),
        ({"slug": [["launch"]]}, '"slug" must hold strings'),
        ({"slug": [{}]}, '"slug" has a matcher {}; known are prefix, exists and anything-but'),
        ({"slug": [{"wildcard": "*"}]}, '"slug" has a matcher {wildcard}'),
        ({"slug": [{"prefix": "a", "exists": True}]}, '"slug" has a matcher {prefix, exists}'),
        ({"slug": [{"prefix": ""}]}, '"slug": prefix must be a string'),
        ({"slug": [{"prefix": ["a"]}]}, '"slug": prefix must be a string'),
        ({"slug": [{"exists": 1}]}, '"slug": exists must be true or false'),
        ({"slug": [{"anything-but": []}]}, '"slug": anything-but must name at least one value'),
        ({"slug": [{"anything-but": {"prefix": "a"}}]}, '"slug" must hold strings'),
        ({"slug": ["x" * (MAX_TEXT_CHARS + 1)]}, '"slug" has a string of 501 characters'),
        ({"slug": ["a\0b"]}, "NUL"),
        ({"slug": ["\ud800"]}, "surrogate"),
        ({"\ud800": ["x"]}, "surrogate"),
        ({"slug": [2**53]}, "number beyond"),
        ({"slug": [float("inf")]}, "number beyond"),
        ({"slug": [{"anything-but": list(range(MAX_VALUES + 1))}]}, "more than 200 values"),
        ({"slug": [str(n) for n in range(MAX_VALUES)], "domain": ["one more"]}, "more than 200 values"),
    ],
)
def test_what_is_no_filter_is_refused_by_the_rule_that_it_breaks(pattern, rule):
    with pytest.raises(FilterError, match=re.escape(rule)):
        compile_filter(pattern)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text() | st.sampled_from(["prefix", "exists"]), inner, max_size=2),
    ),
    max_leaves=6,
)


@given(pattern=json_values, data=events)
def test_whatever_is_sent_as_a_filter_is_compiled_or_refused(pattern, data):
    try:
        compiled = compile_filter(pattern)
    except FilterError:
        return
    assert compiled.matches(data) in (True, False)


def test_a_field_that_none_of_the_events_has_is_refused_with_those_that_they_have():
    fields = {"click": ("slug", "country"), "link.created": ("slug", "createdBy")}
    check_fields({"country": ["DE"], "createdBy": ["usr_1"]}, fields)
    with pytest.raises(
        FilterError, match=r"unknown: 'county'; the data of click, link.created has slug, country, createdBy"
    ):
        check_fields({"county": ["DE"]}, fields)
