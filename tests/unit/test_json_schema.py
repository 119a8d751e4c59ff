"""Avro's types as JSON Schema."""

import json

import pytest
from jsonschema_rs import Draft202012Validator

from go2hooks.codec import EventCodec
from go2hooks.core.domain.event import EventType
from go2hooks.core.encoding.json_schema import json_schema


@pytest.mark.parametrize(
    ("avro", "expected"),
    [
        ("string", {"type": "string"}),
        ({"type": "long", "logicalType": "timestamp-millis"}, {"type": "integer"}),
        (["null", "string"], {"type": ["string", "null"]}),
        ({"type": "array", "items": ["null", "double"]}, {"type": "array", "items": {"type": ["number", "null"]}}),
        ({"type": "map", "values": "boolean"}, {"type": "object", "additionalProperties": {"type": "boolean"}}),
        (
            ["null", {"type": "array", "items": "string"}],
            {"anyOf": [{"type": "null"}, {"type": "array", "items": {"type": "string"}}]},
        ),
        (
            {"type": "enum", "name": "Method", "symbols": ["a", "b"], "doc": "how"},
            {"type": "string", "enum": ["a", "b"], "description": "how"},
        ),
    ],
)
def test_a_type_of_avro_becomes_what_its_values_are_in_json(avro, expected):
    assert json_schema(avro) == expected


def test_a_field_has_its_own_words_before_those_of_its_type():
    method = {"type": "enum", "name": "Method", "symbols": ["a"], "doc": "which it is"}
    record = {"type": "record", "name": "R", "fields": [{"name": "method", "type": method, "doc": "how it was done"}]}
    assert json_schema(record) == {
        "type": "object",
        "properties": {"method": {"type": "string", "enum": ["a"], "description": "how it was done; which it is"}},
        "required": ["method"],
    }


def test_what_has_no_json_is_refused():
    with pytest.raises(ValueError, match="bytes"):
        json_schema({"type": "array", "items": "bytes"})


@pytest.mark.parametrize("kind", EventType)
def test_every_event_type_has_a_schema_that_is_one(kind):
    [data] = [field["type"] for field in EventCodec().schema_of(kind)["fields"] if field["name"] == "data"]
    schema = json_schema(data)
    Draft202012Validator(schema)  # raises for what is no schema
    assert list(schema["properties"]) == [field["name"] for field in data["fields"]]
    assert '"doc"' not in json.dumps(schema)
