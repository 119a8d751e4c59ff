"""Refuses a writer's schema with which a short message could keep a reader busy without bound.

Normally each byte of a message causes a bounded amount of work. There are two exceptions: a type that contains itself,
because each level is a nested call, until the stack is full; and an array whose items take no bytes, because a few
bytes give the number of items. A map is bounded: each entry has a key, which takes bytes.
"""

from typing import Any


def check_bounds(schema: dict[str, Any]) -> None:
    """Raises ValueError, which names the type and the place, unless the message's length bounds the time to read it.

    `schema` must be parsed by fastavro: types have full names, and are defined at their first use.
    """
    _Walk().may_be_empty(schema, str(schema.get("name")))


class _Walk:
    """Walks through one schema and visits each named type once."""

    def __init__(self) -> None:
        self._inside: set[str] = set()  # names of the records that contain the current type
        self._empty: dict[str, bool] = {}  # by named type: whether a value may take no bytes

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
        return False  # a union has the index of its branch, an array or a map its count: at least one byte

    def _record_may_be_empty(self, name: str, fields: list[dict[str, Any]]) -> bool:
        self._inside.add(name)
        empty = [self.may_be_empty(field["type"], f"{name}.{field['name']}") for field in fields]
        self._inside.remove(name)
        self._empty[name] = all(empty)
        return self._empty[name]
