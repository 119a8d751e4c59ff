"""The quick reader reads what fastavro reads, as fastavro reads it, and takes nothing that fastavro refuses."""

import io
import json
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from go2hooks.core.encoding.avro import make_plan

SCHEMAS = Path(__file__).parents[2] / "schemas"
EVERYTHING: dict[str, Any] = {
    "type": "record",
    "name": "Everything",
    "fields": [
        {"name": "s", "type": "string"},
        {"name": "b", "type": "bytes"},
        {"name": "i", "type": "int"},
        {"name": "l", "type": {"type": "long"}},
        {"name": "t", "type": "boolean"},
        {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["x", "y", "z"]}},
        {"name": "n", "type": ["null", "string"]},
        {"name": "m", "type": ["long", "null"]},
        {
            "name": "r",
            "type": {"type": "record", "name": "R", "fields": [{"name": "in", "type": ["null", "boolean"]}]},
        },
    ],
}
PARSED: Any = fastavro.parse_schema(EVERYTHING)

texts = st.text(st.characters(exclude_categories=("Cs",)))
longs = st.integers(-(2**63), 2**63 - 1)
records = st.fixed_dictionaries(
    {
        "s": texts,
        "b": st.binary(),
        "i": st.integers(-(2**31), 2**31 - 1),
        "l": longs,
        "t": st.booleans(),
        "e": st.sampled_from("xyz"),
        "n": st.none() | texts,
        "m": st.none() | longs,
        "r": st.fixed_dictionaries({"in": st.none() | st.booleans()}),
    }
)


def written(record: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, PARSED, record)
    return stream.getvalue()


def read_by_fastavro(raw: bytes) -> Any:
    """The record, when it is all of `raw`; else None."""
    stream = io.BytesIO(raw)
    try:
        record = fastavro.schemaless_reader(stream, PARSED, None)
    except Exception:  # noqa: BLE001  # whatever malformed bytes provoke
        return None
    return record if stream.tell() == len(raw) else None


def planned(raw: bytes) -> dict[str, Any] | None:
    plan = make_plan(PARSED)
    assert plan is not None
    return plan.read(b"head" + raw, 4)


@given(records)
def test_a_record_is_read_as_it_was_written_in_its_schemas_order(record: dict[str, Any]) -> None:
    found = planned(written(record))
    assert found == record
    assert list(found) == [field["name"] for field in EVERYTHING["fields"]]


@given(records, st.data())
@settings(max_examples=3 * settings.default.max_examples)
def test_nothing_is_read_that_fastavro_refuses_or_reads_otherwise(record: dict[str, Any], data: st.DataObject) -> None:
    raw = written(record)
    start = data.draw(st.integers(0, len(raw)))
    end = data.draw(st.integers(start, min(len(raw), start + 12)))
    damaged = raw[:start] + data.draw(st.binary(max_size=12)) + raw[end:]
    assert planned(damaged) in (None, read_by_fastavro(damaged))


@given(st.lists(st.integers(0x80, 0xFF), max_size=12), st.integers(0, 0x7F))
@example([0xFF] * 9, 1)
@example([0xFE] + [0xFF] * 8, 1)
@example([0xFF] * 9, 2)
@example([0xFF] * 10, 0)
def test_a_number_is_read_as_fastavro_reads_it_or_not_at_all(more: list[int], last: int) -> None:
    """Sizes and numbers at the edges of what fits, and beyond; negative sizes; symbols and branches that there are not."""
    number = bytes([*more, last])
    fields = [b"\0", b"\0", b"\0", b"\0", b"\0", b"\0", b"\0", b"\2", b"\0"]
    for place in range(len(fields)):
        raw = b"".join([*fields[:place], number, *fields[place + 1 :]])
        assert planned(raw) in (None, read_by_fastavro(raw))


@pytest.mark.parametrize("length", [1, 100_000])
def test_a_number_without_an_end_is_given_up_at_once(length: int) -> None:
    assert planned(b"\xff" * length) is None


@pytest.mark.parametrize(
    "kind",
    [
        "float",
        {"type": "array", "items": "string"},
        {"type": "map", "values": "string"},
        ["null", "string", "long"],
        ["string", "long"],
        "Named",
        {"type": "record", "name": "Inner", "fields": [{"name": "x", "type": "double"}]},
    ],
    ids=str,
)
def test_a_schema_of_other_kinds_has_no_plan(kind: Any) -> None:
    assert (
        make_plan({"type": "record", "fields": [{"name": "a", "type": "string"}, {"name": "b", "type": kind}]}) is None
    )


def test_what_comes_in_numbers_has_a_plan() -> None:
    for name in ("click", "qr_scanned", "delivery"):
        schema: Any = fastavro.parse_schema(json.loads((SCHEMAS / f"{name}.avsc").read_text(encoding="utf-8")))
        assert make_plan(schema) is not None, name
