"""Avro's schemas as JSON Schema: what a receiver finds in a payload's `data`."""

from collections.abc import Mapping
from typing import Any, Final

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_SIMPLE: Final = {
    "null": "null", "boolean": "boolean", "int": "integer", "long": "integer", "float": "number", "double": "number",
    "string": "string",
}  # fmt: skip


def json_schema(avro: Any) -> dict[str, Any]:
    """Of an Avro type whose named types stand where they are used. Raises ValueError for one that has no JSON.

    Every field of a record is required: what is not known is null, never left out. Further ones are allowed, since a
    newer version may add some.
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
        return {"type": [kind["type"] for kind in reversed(kinds)]}  # Avro has null first, for its default
    return {"anyOf": kinds}


def _documented(schema: dict[str, Any], avro: Mapping[str, Any]) -> dict[str, Any]:
    """With what Avro says of it; a field's words come before those of its type."""
    words = [doc for doc in (avro.get("doc"), schema.get("description")) if doc]
    return schema | ({"description": "; ".join(words)} if words else {})
