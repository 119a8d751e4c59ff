"""Avro in and out: every compatible writer is understood, and everything else is a named error."""

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import pytest
from fastavro.schema import fingerprint, to_parsing_canonical_form
from hypothesis import given, settings
from hypothesis import strategies as st

from go2hooks.codec import (
    HEADER_BYTES,
    LOGICAL_TYPE_KEPT,
    MARKER,
    OBJECT_KEPT,
    EventCodec,
    decode_delivery,
    encode_delivery,
    encode_fan_out,
)
from go2hooks.core.domain.delivery import Delivery, Kind
from go2hooks.core.domain.event import ABOUT_WEBHOOKS, Event, EventType
from go2hooks.core.domain.samples import example_payload, sample_data
from go2hooks.core.errors import EventError, InvalidEventError, SettingsError, UndecodableEventError

ROOT = Path(__file__).parents[2]
OTHER_VERSIONS = Path(__file__).parent / "schemas"
FINGERPRINTS = Path(__file__).parent / "vectors" / "fingerprints.json"

CODEC = EventCodec(OTHER_VERSIONS)
DELIVERY = Delivery(
    id="dlv_1",
    webhook_id="wh_1",
    account_id="acc_1",
    event_id="evt_1",
    event="click",
    timestamp="2024-01-01T12:00:00Z",
    body='{"ü":1}'.encode(),
    attempt=2,
    due_ms=1_704_110_400_000,
    kind="event",
    origin_ms=1_704_110_300_000,
    suspect=True,
)

texts = st.text(st.characters(exclude_categories=("Cs",)))
longs = st.integers(-(2**63), 2**63 - 1)
events = st.builds(
    lambda kind, seed, event_id, account, moment: Event(
        event_id, account, str(kind), moment, sample_data(kind, random.Random(seed))
    ),
    st.sampled_from(EventType),
    st.integers(0, 2**32),
    texts,
    texts,
    longs,
)
deliveries = st.builds(
    Delivery,
    *([texts] * 6),
    body=st.binary(),
    attempt=st.integers(-(2**31), 2**31 - 1),
    first_attempt=st.integers(-(2**31), 2**31 - 1),
    due_ms=longs,
    kind=st.sampled_from([str(kind) for kind in Kind]),
    origin_ms=longs,
    suspect=st.booleans(),
    deployment=texts,
)
VALID_MESSAGES = [CODEC.encode(example_payload(kind)) for kind in EventType] + [encode_delivery(DELIVERY)]


def schema(path: Path) -> dict[str, Any]:
    loaded = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def written_by(path: Path, record: dict[str, Any]) -> bytes:
    """A message as some other producer, with its own schema, frames it."""
    writer = schema(path)
    mark = bytes.fromhex(fingerprint(to_parsing_canonical_form(writer), "CRC-64-AVRO"))
    stream = io.BytesIO()
    stream.write(b"\xc3\x01" + mark)
    fastavro.schemaless_writer(stream, fastavro.parse_schema(writer), record)
    return stream.getvalue()


def record(name: str, **fields: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": n, "type": kind} for n, kind in fields.items()]}


def array(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def fixed(size: int) -> dict[str, Any]:
    return {"type": "fixed", "name": "Fixed", "size": size}


def with_meta(folder: Path, kind: Any) -> Path:
    """A newer writer's schema, which has one more field."""
    writer = schema(ROOT / "schemas" / "domain_verified.avsc")
    writer["fields"].append({"name": "meta", "type": kind})
    path = folder / "domain_verified.avsc"
    path.write_text(json.dumps(writer), encoding="utf-8")
    return path


def as_record(event: Event, **changes: Any) -> dict[str, Any]:
    data = event.data | changes
    return {"id": event.id, "accountId": event.account_id, "timestamp": event.timestamp_ms, "data": data}


@given(events)
def test_an_event_reads_back_as_it_was_with_its_data_in_order(event: Event) -> None:
    read = CODEC.decode(CODEC.encode(event))
    assert read == event
    assert list(read.data) == list(event.data)


@given(deliveries)
def test_a_delivery_reads_back_as_it_was(delivery: Delivery) -> None:
    assert decode_delivery(encode_delivery(delivery)) == delivery


@given(deliveries)
def test_a_delivery_is_encoded_as_the_avro_library_would(delivery: Delivery) -> None:
    path = ROOT / "schemas" / "delivery.avsc"
    names = [field["name"] for field in schema(path)["fields"]]
    assert encode_delivery(delivery) == written_by(path, dict(zip(names, delivery, strict=True)))


@given(deliveries, st.lists(st.tuples(st.text(max_size=40), st.text(max_size=200)), max_size=4))
def test_what_is_fanned_out_together_is_encoded_as_it_would_be_alone(
    delivery: Delivery, names: list[tuple[str, str]]
) -> None:
    fanned_out = [delivery._replace(id=own, webhook_id=webhook_id) for own, webhook_id in names]
    assert encode_fan_out(fanned_out) == [encode_delivery(each) for each in fanned_out]


def test_the_fields_of_a_delivery_are_those_of_its_schema_in_order() -> None:
    names = [field["name"] for field in schema(ROOT / "schemas" / "delivery.avsc")["fields"]]
    spelled = {"due_ms": "dueAt", "origin_ms": "originAt"}
    assert names == [spelled.get(name, _camel(name)) for name in Delivery._fields]


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)


@pytest.mark.parametrize("kind", EventType)
def test_the_data_of_each_schema_has_the_fields_of_the_contract(kind: EventType) -> None:
    click = ["linkId", "slug", "domain", "destinationUrl", "country", "city", "device", "browser", "os", "referrer"]
    link = ["id", "slug", "domain", "destinationUrl", "shortUrl"]
    webhook = ["webhookId", "name", "url", "reason", "consecutiveFailures", "lastError", "since"]
    contract = {
        EventType.CLICK: click,
        EventType.LINK_CREATED: [*link, "createdBy"],
        EventType.LINK_UPDATED: [*link, "updatedBy", "changes"],
        EventType.LINK_DELETED: [*link, "deletedBy"],
        EventType.DOMAIN_VERIFIED: ["id", "domain", "verifiedBy", "method"],
        EventType.QR_SCANNED: ["qrId", *click],
        EventType.WEBHOOK_DISABLED: webhook,
        EventType.WEBHOOK_FAILING: webhook,
    }
    assert list(CODEC.decode(CODEC.encode(example_payload(kind))).data) == contract[kind]


def test_every_schema_documents_every_field() -> None:
    for path in (ROOT / "schemas").glob("*.avsc"):
        record = schema(path)
        fields = list(record["fields"])
        fields += [
            nested for field in fields if isinstance(field["type"], dict) for nested in field["type"].get("fields", [])
        ]
        assert record["doc"]
        assert all(field["doc"] for field in fields), path


def test_no_schema_changed_without_its_former_version_being_kept() -> None:
    """When this fails: copy the former schema to schemas/history, then add the new fingerprint to the file."""
    known = json.loads(FINGERPRINTS.read_text(encoding="utf-8"))
    current = {path.stem: _fingerprint(path) for path in (ROOT / "schemas").glob("*.avsc")}
    kept = {_fingerprint(path) for path in (ROOT / "schemas" / "history").glob("*.avsc")}
    assert {name: marks[-1] for name, marks in known.items()} == current
    assert {mark for marks in known.values() for mark in marks[:-1]} <= kept


def _fingerprint(path: Path) -> str:
    return fingerprint(to_parsing_canonical_form(schema(path)), "CRC-64-AVRO")


class TestOtherWriters:
    def test_an_older_click_gets_null_for_what_its_writer_did_not_know(self) -> None:
        event = example_payload("click")
        raw = written_by(OTHER_VERSIONS / "click-older.avsc", as_record(event))
        read = CODEC.decode(raw)
        assert read == event._replace(data=event.data | {"city": None, "referrer": None})
        assert list(read.data) == list(event.data)

    def test_a_newer_click_loses_what_we_do_not_know_and_keeps_our_order(self) -> None:
        event = example_payload("click")
        record = as_record(event, ipVersion=6, tags=["a", "b"]) | {"traceId": "t"}
        read = CODEC.decode(written_by(OTHER_VERSIONS / "click-newer.avsc", record))
        assert read == event
        assert list(read.data) == list(event.data)

    @pytest.mark.parametrize(("method", "read_as"), [("email", "other"), ("http", "http"), ("dns_txt", "dns_txt")])
    def test_a_verification_method_that_we_do_not_know_is_other(self, method: str, read_as: str) -> None:
        event = example_payload("domain.verified")
        raw = written_by(OTHER_VERSIONS / "domain_verified-newer.avsc", as_record(event, method=method))
        assert CODEC.decode(raw).data["method"] == read_as

    def test_a_newer_writer_is_unknown_without_its_schema(self) -> None:
        event = example_payload("click")
        raw = written_by(OTHER_VERSIONS / "click-older.avsc", as_record(event))
        with pytest.raises(UndecodableEventError, match=f"no known schema has the fingerprint {raw[2:10].hex()}"):
            EventCodec().decode(raw)

    def test_an_incompatible_writer_is_undecodable(self, tmp_path: Path) -> None:
        """It names our record, but has no account."""
        writer = schema(ROOT / "schemas" / "click.avsc")
        writer["fields"] = [field for field in writer["fields"] if field["name"] != "accountId"]
        path = tmp_path / "click.avsc"
        path.write_text(json.dumps(writer), encoding="utf-8")
        raw = written_by(path, as_record(example_payload("click")))
        with pytest.raises(UndecodableEventError, match=r"malformed go2\.events\.v1\.Click"):
            EventCodec(tmp_path).decode(raw)

    def test_a_copy_of_our_own_schema_is_no_other_writer(self, tmp_path: Path) -> None:
        (tmp_path / "click.avsc").write_bytes((ROOT / "schemas" / "click.avsc").read_bytes())
        event = example_payload("click")
        assert EventCodec(tmp_path).decode(EventCodec().encode(event)) == event

    @pytest.mark.parametrize(
        "text",
        [
            "", "{", "[]", "null", '"string"', '{"type": "record"}', '{"type": "record", "name": "X", "fields": [{}]}',
            '{"type": "enum", "name": "E", "symbols": ["a"]}', '{"type": "record", "name": "X", "fields": 3}',
            '{"type": "record", "name": "go2.events.v1.Other", "fields": []}', "\u0000",
            '{"type": "record", "name": "X", "fields": [{"name": "a", "type": "nosuch"}]}',
        ],
    )  # fmt: skip
    def test_a_schema_file_that_cannot_be_used_is_named(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "bad.avsc").write_text(text, encoding="utf-8")
        with pytest.raises(SettingsError, match=r"bad\.avsc"):
            EventCodec(tmp_path)

    @pytest.mark.parametrize(
        ("kind", "why"),
        [
            (record("Node", next=["null", "Node"]), r"v1\.Node that it may hold: the type contains itself"),
            (record("Tree", branches={"type": "array", "items": "Tree"}), "contains itself"),
            (record("Tree", branches={"type": "map", "values": ["null", "Tree"]}), "contains itself"),
            (record("A", b=record("B", a=["null", "A"])), r"v1\.B\.a is within .*v1\.A"),
            (record("A", b=record("B", c=record("C", b=["null", "B"]))), r"v1\.C\.b is within .*v1\.B"),
            ("DomainVerified", r"v1\.DomainVerified\.meta is within"),
            (array("null"), r"v1\.DomainVerified\.meta is an array whose items may take no bytes"),
            (array({"type": "null"}), "no bytes"),
            (array(record("Empty")), "no bytes"),
            (array(record("Outer", a="null", b=record("Inner"))), "no bytes"),
            (array(fixed(0)), "no bytes"),
            (record("Two", a=record("Empty"), b=array("Empty")), r"v1\.Two\.b is an array"),
            (["null", array("null")], "no bytes"),
            ({"type": "map", "values": array("null")}, "no bytes"),
            (array(array("null")), "no bytes"),
        ],
    )
    def test_a_schema_whose_short_messages_could_be_read_for_ever_is_refused(
        self, tmp_path: Path, kind: Any, why: str
    ) -> None:
        """Or until the stack is full, as fastavro calls itself for each level."""
        path = with_meta(tmp_path, kind)
        with pytest.raises(SettingsError, match=rf"{path.name} cannot be used.*{why}"):
            EventCodec(tmp_path)

    @pytest.mark.parametrize(
        ("kind", "value"),
        [
            (array(["null", "string"]), [None, "a", None]),
            (array(["null"]), [None, None]),
            (array(fixed(1)), [b"a", b"b"]),
            (array(record("Part", nothing="null", some="int")), [{"nothing": None, "some": 1}] * 2),
            (array({"type": "enum", "name": "E", "symbols": ["a"]}), ["a", "a"]),
            (array(array("long")), [[], [1]]),
            (record("Empty"), {}),
            ({"type": "map", "values": "null"}, {"a": None}),  # each has a key
            (record("Twice", a=record("Part", n="int"), b="Part"), {"a": {"n": 1}, "b": {"n": 2}}),
            (record("Pair", e=record("Empty"), n=array(["Empty", "int"])), {"e": {}, "n": [1, {}]}),
        ],
    )
    def test_what_has_no_end_to_it_but_the_messages_own_is_read(self, tmp_path: Path, kind: Any, value: Any) -> None:
        event = example_payload("domain.verified")
        raw = written_by(with_meta(tmp_path, kind), as_record(event) | {"meta": value})
        assert EventCodec(tmp_path).decode(raw) == event

    def test_a_schema_folder_that_does_not_exist_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="absent is not a folder"):
            EventCodec(tmp_path / "absent")


class TestFraming:
    @pytest.mark.parametrize(
        ("raw", "message"),
        [
            (b"", "the message is empty"),
            (b"\x00\x00\x00\x00\x01rest", "a schema registry, which is not read: write Avro's single-object encoding"),
            (b"\x00", "a schema registry, which is not read: write Avro's single-object encoding"),
            (b"{}", "neither framing starts with the bytes 7b 7d"),
            (b"\xc3", "neither framing starts with the bytes c3"),
            (b"\xc3\x02" + b"x" * 20, "neither framing"),
            (b"\xc3\x01", "cut off after 2 bytes"),
            (b"\xc3\x01" + b"x" * 7, "cut off after 9 bytes"),
            (b"\xc3\x01" + b"\xff" * 8, "no known schema has the fingerprint ffffffffffffffff"),
            (encode_delivery(DELIVERY), r"a go2\.webhooks\.v1\.Delivery is no event"),
        ],
    )
    def test_what_no_event_starts_with_is_undecodable(self, raw: bytes, message: str) -> None:
        with pytest.raises(UndecodableEventError, match=message) as caught:
            CODEC.decode(raw)
        assert caught.value.reason == "undecodable"

    def test_an_event_is_no_delivery(self) -> None:
        with pytest.raises(UndecodableEventError, match=r"a go2\.events\.v1\.Click is no delivery"):
            decode_delivery(CODEC.encode(example_payload("click")))

    def test_the_header_is_the_marker_and_the_fingerprint_of_the_canonical_form(self) -> None:
        raw = CODEC.encode(example_payload("click"))
        assert raw[:2] == MARKER == b"\xc3\x01"
        assert raw[2:HEADER_BYTES].hex() == _fingerprint(ROOT / "schemas" / "click.avsc")

    def test_the_fingerprint_is_crc_64_avro_little_endian(self) -> None:
        """Computed by the specification's own algorithm."""
        canonical = to_parsing_canonical_form(schema(ROOT / "schemas" / "click.avsc")).encode()
        empty = 0xC15D213AA4D7A795
        table = []
        for start in range(256):
            value = start
            for _ in range(8):
                value = (value >> 1) ^ (empty & -(value & 1))
            table.append(value)
        crc = empty
        for byte in canonical:
            crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
        assert CODEC.encode(example_payload("click"))[2:10] == crc.to_bytes(8, "little")


class TestMalformed:
    @pytest.mark.parametrize("raw", VALID_MESSAGES, ids=[*EventType, "delivery"])
    def test_a_message_cut_anywhere_is_undecodable(self, raw: bytes) -> None:
        decode = _decoder_of(raw)
        for length in range(len(raw)):
            with pytest.raises(UndecodableEventError):
                decode(raw[:length])

    @pytest.mark.parametrize("raw", VALID_MESSAGES, ids=[*EventType, "delivery"])
    def test_trailing_bytes_are_undecodable(self, raw: bytes) -> None:
        with pytest.raises(UndecodableEventError, match="1 bytes follow"):
            _decoder_of(raw)(raw + b"\0")
        with pytest.raises(UndecodableEventError, match="bytes follow"):
            _decoder_of(raw)(raw + raw)

    @given(st.binary(max_size=200))
    def test_garbage_is_an_event_error(self, raw: bytes) -> None:
        _decodes_or_is_an_event_error(CODEC.decode, raw)
        _decodes_or_is_an_event_error(decode_delivery, raw)

    @given(st.sampled_from([raw[:HEADER_BYTES] for raw in VALID_MESSAGES]), st.binary(max_size=200))
    @settings(max_examples=3 * settings.default.max_examples)
    def test_garbage_behind_a_known_header_is_an_event_error(self, header: bytes, rest: bytes) -> None:
        _decodes_or_is_an_event_error(CODEC.decode, header + rest)
        _decodes_or_is_an_event_error(decode_delivery, header + rest)

    @given(st.sampled_from(VALID_MESSAGES), st.data())
    @settings(max_examples=3 * settings.default.max_examples)
    def test_a_damaged_message_is_an_event_error_or_another_event(self, raw: bytes, data: st.DataObject) -> None:
        start = data.draw(st.integers(HEADER_BYTES, len(raw)))
        end = data.draw(st.integers(start, min(len(raw), start + 12)))
        damaged = raw[:start] + data.draw(st.binary(max_size=12)) + raw[end:]
        _decodes_or_is_an_event_error(_decoder_of(raw), damaged)

    @given(st.binary(max_size=300))
    def test_garbage_that_needs_resolution_is_an_event_error(self, rest: bytes) -> None:
        for name in ("click-older", "click-newer", "domain_verified-newer"):
            header = MARKER + bytes.fromhex(_fingerprint(OTHER_VERSIONS / f"{name}.avsc"))
            _decodes_or_is_an_event_error(CODEC.decode, header + rest)

    @pytest.mark.parametrize("length", [2**31 - 1, 2**40, 2**62, 2**63 - 1, -1, -(2**63)])
    def test_a_promise_of_gigabytes_allocates_none(self, length: int) -> None:
        header = VALID_MESSAGES[0][:HEADER_BYTES]
        with pytest.raises(UndecodableEventError):
            CODEC.decode(header + _zigzag(length) + b"short")

    def test_a_time_beyond_the_calendar_decodes_and_is_for_validation_to_refuse(self) -> None:
        event = example_payload("click")._replace(timestamp_ms=2**62)
        assert CODEC.decode(CODEC.encode(event)) == event


def _decoder_of(raw: bytes) -> Callable[[bytes], Event | Delivery]:
    return decode_delivery if raw == VALID_MESSAGES[-1] else CODEC.decode


def _decodes_or_is_an_event_error(decode: Callable[[bytes], Event | Delivery], raw: bytes) -> None:
    try:
        decoded = decode(raw)
    except EventError as error:
        message = str(error)
        assert message
        assert len(message) < 400  # it travels in a Kafka header
    else:
        assert isinstance(decoded, Event | Delivery)


def _zigzag(number: int) -> bytes:
    value = (number << 1) ^ (number >> 63)
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class TestEncodingInvalidEvents:
    @pytest.mark.parametrize(
        "data",
        [
            {},
            {"linkId": "l"},
            example_payload("click").data | {"linkId": None},
            example_payload("click").data | {"linkId": 5},
            example_payload("click").data | {"linkId": "\ud800"},
            example_payload("click").data | {"country": 5},
            example_payload("click").data | {"unknown": "x"},
            None,
            [],
            "text",
        ],
        ids=repr,
    )
    def test_data_that_does_not_fit_the_schema_is_invalid(self, data: Any) -> None:
        with pytest.raises(InvalidEventError, match="does not fit the schema of click"):
            CODEC.encode(example_payload("click")._replace(data=data))

    def test_a_verification_method_outside_the_enum_is_invalid(self) -> None:
        event = example_payload("domain.verified")
        with pytest.raises(InvalidEventError):
            CODEC.encode(event._replace(data=event.data | {"method": "telepathy"}))

    @pytest.mark.parametrize(
        "change", [{"id": None}, {"account_id": 3}, {"timestamp_ms": 2**63}, {"timestamp_ms": "x"}], ids=repr
    )
    def test_the_other_fields_are_held_to_the_schema_too(self, change: dict[str, Any]) -> None:
        with pytest.raises(InvalidEventError):
            CODEC.encode(example_payload("click")._replace(**change))

    def test_an_unknown_type_is_invalid_and_the_known_ones_are_named(self) -> None:
        with pytest.raises(
            InvalidEventError, match=r"unknown event type 'link\.moved'; known are click, link\.created"
        ):
            CODEC.encode(example_payload("click")._replace(type="link.moved"))

    def test_what_has_a_default_may_be_left_out(self) -> None:
        event = example_payload("click")
        data = {name: value for name, value in event.data.items() if name != "city"}
        assert CODEC.decode(CODEC.encode(event._replace(data=data))).data == event.data | {"city": None}

    @given(st.sampled_from(EventType), st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=6,
    ))  # fmt: skip
    def test_any_other_data_is_an_invalid_event(self, kind: EventType, data: Any) -> None:
        with pytest.raises(InvalidEventError):
            CODEC.encode(example_payload(kind)._replace(data=data))


MISPRINTS = json.loads((Path(__file__).parent / "vectors" / "misprints.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("libraries", [OBJECT_KEPT, LOGICAL_TYPE_KEPT])
@pytest.mark.parametrize("kind", [kind for kind in EventType if kind not in ABOUT_WEBHOOKS])  # which we write alone
def test_an_event_under_the_fingerprint_that_a_library_computes_wrongly_is_read_and_counted(
    kind: EventType, libraries: str
) -> None:
    """The rest of the message is right."""
    told: list[str] = []
    codec = EventCodec(on_misprint=told.append)
    right = codec.encode(Event("evt_1", "acme", kind, 1, example_payload(kind).data))
    assert codec.decode(right).type == kind
    assert told == []
    wrong = right[:2] + bytes.fromhex(MISPRINTS[libraries][kind.replace(".", "_")]) + right[10:]
    assert codec.decode(wrong) == codec.decode(right)
    assert told == [libraries]
