"""What a writer's schema may not have, since a short message could then keep whoever reads it busy without bound.

Each byte of a message pays for a bounded piece of work: unless a type contains itself, whose levels are calls within
calls, until the stack is full; or the items of an array take no bytes, as a number says how many they are. A map's
entries always do: each has a key.
"""

from typing import Any


def check_bounds(schema: dict[str, Any]) -> None:
    """Raises ValueError, saying what and where, unless reading takes a time that is bounded by the message's length.

    `schema` is one that fastavro has parsed: types are named in full, and described where they come first.
    """
    _Walk().may_be_empty(schema, str(schema.get("name")))


class _Walk:
    """Through one schema, each named type once."""

    def __init__(self) -> None:
        self._inside: set[str] = set()  # of these records
        self._empty: dict[str, bool] = {}  # of the named types that were passed: whether one may take no bytes

    def may_be_empty(self, schema: Any, where: str) -> bool:
        """Whether a value may take no bytes."""
        match schema:
            case str():
                if schema in self._inside:
                    raise ValueError(f"{where} is within the {schema} that it may hold: the type contains itself")
                return self._empty.get(schema, schema == "null")
            case {"type": "record" | "error", "name": str(name), "fields": fields}:
                return self._record_may_be_empty(name, fields)
            case {"type": "fixed", "name": str(name), "size": size}:
                self._empty[name] = size == 0
                return self._empty[name]
            case list():
                for branch in schema:
                    self.may_be_empty(branch, where)
            case {"type": "array", "items": items}:
                if self.may_be_empty(items, where):
                    raise ValueError(f"{where} is an array whose items may take no bytes")
            case {"type": "map", "values": values}:
                self.may_be_empty(values, where)
            case _:
                return bool(schema["type"] == "null")
        return False  # the number of the branch, or of the entries, takes one

    def _record_may_be_empty(self, name: str, fields: list[dict[str, Any]]) -> bool:
        self._inside.add(name)
        empty = [self.may_be_empty(field["type"], f"{name}.{field['name']}") for field in fields]
        self._inside.remove(name)
        self._empty[name] = all(empty)
        return self._empty[name]
