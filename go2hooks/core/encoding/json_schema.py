"""Converts Avro schemas to JSON Schema, to describe a payload's `data` to receivers."""

from collections.abc import Mapping
from typing import Any, Final

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_SIMPLE: Final = {
    "null": "null", "boolean": "boolean", "int": "integer", "long": "integer", "float": "number", "double": "number",
    "string": "string",
}  # fmt: skip


def json_schema(avro: Any) -> dict[str, Any]:
    """The JSON Schema of an Avro type; named types must be defined at their use. Raises ValueError for other types.

    Every field of a record is required, because an unknown value is null and never missing. Additional fields are
    allowed, because a newer version may add some.
    """
    if isinstance(avro, list):
        return _union(avro)
    if isinstance(avro, str):
        avro = {"type": avro}
    match avro["type"]:
        case "record":
            return _record(avro)
        case "enum":
            return _documented({"type": "string", "enum": list(avro["symbols"])}, avro)
        case "array":
            return {"type": "array", "items": json_schema(avro["items"])}
        case "map":
            return {"type": "object", "additionalProperties": json_schema(avro["values"])}
        case str(simple) if simple in _SIMPLE:
            return {"type": _SIMPLE[simple]}
        case other:
            raise ValueError(f"there is no JSON Schema for the Avro type {other!r:.80}")


def _record(avro: Mapping[str, Any]) -> dict[str, Any]:
    properties = {field["name"]: _documented(json_schema(field["type"]), field) for field in avro["fields"]}
    return _documented({"type": "object", "properties": properties, "required": list(properties)}, avro)


def _union(branches: list[Any]) -> dict[str, Any]:
    kinds = [json_schema(branch) for branch in branches]
    if all(set(kind) == {"type"} for kind in kinds):
        return {"type": [kind["type"] for kind in reversed(kinds)]}  # Avro puts null first, because its default is null
    return {"anyOf": kinds}


def _documented(schema: dict[str, Any], avro: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with Avro's documentation: first the field's, then its type's."""
    words = [doc for doc in (avro.get("doc"), schema.get("description")) if doc]
    return schema | ({"description": "; ".join(words)} if words else {})
