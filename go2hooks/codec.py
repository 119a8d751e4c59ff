"""Avro bytes to core types and back.

Every message is in Avro's single-object encoding: `C3 01`, the CRC-64-AVRO fingerprint of the writer's schema, and
the record. The fingerprint alone tells which schema wrote a message. Schemas come from three places: those that ship
with this version, the former ones in `schemas/history`, and the operator's own folder (`GO2HOOKS_SCHEMA_DIR`).

A message of our own schema is read as it is. One of an older or a newer schema is resolved to ours by
Avro's rules: fields that it lacks take their defaults, fields that we don't know are dropped.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from io import BytesIO
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.schema import SchemaParseException, fingerprint, to_parsing_canonical_form

from go2hooks.core.domain.delivery import Delivery
from go2hooks.core.domain.event import Event, EventType
from go2hooks.core.encoding.avro import Plan, make_plan
from go2hooks.core.encoding.schema_bounds import check_bounds
from go2hooks.core.errors import InvalidEventError, SettingsError, UndecodableEventError

MARKER: Final = b"\xc3\x01"
HEADER_BYTES: Final = 10  # the marker and the fingerprint

OBJECT_KEPT: Final = "avro-python goavro apache-avro-rust"
LOGICAL_TYPE_KEPT: Final = "hamba-avro"
_CONFLUENT_MARKER: Final = b"\x00"
_SUFFIX: Final = ".avsc"
_RECORD_OF_EVENT: Final[dict[str, str]] = {
    EventType.CLICK: "go2.events.v1.Click",
    EventType.LINK_CREATED: "go2.events.v1.LinkCreated",
    EventType.LINK_UPDATED: "go2.events.v1.LinkUpdated",
    EventType.LINK_DELETED: "go2.events.v1.LinkDeleted",
    EventType.DOMAIN_VERIFIED: "go2.events.v1.DomainVerified",
    EventType.QR_SCANNED: "go2.events.v1.QrScanned",
    EventType.WEBHOOK_DISABLED: "go2.events.v1.WebhookDisabled",
    EventType.WEBHOOK_FAILING: "go2.events.v1.WebhookFailing",
}
_DELIVERY_RECORD: Final = "go2.webhooks.v1.Delivery"


class Schema(NamedTuple):
    """One record schema, parsed for fastavro."""

    name: str  #: full name of the record
    header: bytes  #: what a single-object message of this schema starts with
    parsed: dict[str, Any]
    source: str  #: the file that it was read from
    misprints: dict[bytes, str]  #: wrong headers that some libraries write for it, and which libraries


def _load_folder(folder: Traversable) -> Iterator[Schema]:
    if not folder.is_dir():
        raise SettingsError(f"{folder} is not a folder of {_SUFFIX} files")
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(_SUFFIX):
            yield load_schema(file)


def load_schema(file: Traversable) -> Schema:
    """Read one `.avsc` file. Raises SettingsError naming it when it is no record schema, or one without bounds."""
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        canonical = to_parsing_canonical_form(raw)
        parsed = parse_schema(_without_logical_types(raw))
    except (OSError, ValueError, KeyError, TypeError, SchemaParseException) as error:
        raise SettingsError(f"{file} is not an Avro record schema: {_described(error)}") from error
    if not isinstance(parsed, dict) or parsed["type"] != "record":
        raise SettingsError(f"{file} is not an Avro record schema: its outermost type is none")
    try:
        check_bounds(parsed)
    except ValueError as error:
        raise SettingsError(f"{file} cannot be used, a short message could take any time to read: {error}") from error
    header = _header(canonical)
    misprints = {_header(other): libraries for libraries, other in _misread(raw, canonical)}
    misprints.pop(header, None)
    return Schema(parsed["name"], header, parsed, str(file), misprints)


def _header(canonical: str) -> bytes:
    return MARKER + bytes.fromhex(fingerprint(canonical, "CRC-64-AVRO"))


def _misread(raw: dict[str, Any], canonical: str) -> Iterator[tuple[str, str]]:
    """The canonical form as some libraries get it wrong: Avro's rules strip a logical type and the object around it.

    Only the fingerprint of their messages is wrong. Tests compare this function with messages of these libraries.
    """
    plain = hamba = canonical
    for name, type_, logical in _logical_fields(raw):
        stripped = f'{{"name":"{name}","type":"{type_}"}}'
        plain = plain.replace(stripped, f'{{"name":"{name}","type":{{"type":"{type_}"}}}}')
        hamba = hamba.replace(stripped, f'{{"name":"{name}","type":{{"type":"{type_}","logicalType":"{logical}"}}}}')
    yield OBJECT_KEPT, plain
    yield LOGICAL_TYPE_KEPT, hamba


def _logical_fields(raw: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for field in raw["fields"]:
        kind = field["type"]  # compiled, a `match` would take a plain name for an object
        if isinstance(kind, dict) and kind["type"] == "record":
            yield from _logical_fields(kind)
        elif isinstance(kind, dict) and "logicalType" in kind:
            yield field["name"], kind["type"], kind["logicalType"]


def _without_logical_types(schema: Any) -> Any:
    """Keep times as integers: this saves a datetime per field, and a value out of its range is no error."""
    if isinstance(schema, dict):
        return {key: _without_logical_types(value) for key, value in schema.items() if key != "logicalType"}
    if isinstance(schema, list):
        return [_without_logical_types(value) for value in schema]
    return schema


def _data_fields(schema: Schema) -> tuple[str, ...]:
    data = next(field for field in schema.parsed["fields"] if field["name"] == "data")
    return tuple(field["name"] for field in data["type"]["fields"])


class _Reader(NamedTuple):
    """How messages of one fingerprint are read."""

    record: str
    writer: dict[str, Any]
    reader: dict[str, Any] | None  #: None when our own schema wrote them: nothing to resolve
    plan: Plan | None = None  #: the fast decoder; only for some of our own schemas
    libraries: str = ""  #: which libraries write this fingerprint, where it is not the schema's


class _Schemas:
    """The schemas that we write, and a reader for each known fingerprint."""

    def __init__(self, extra_dir: Path | None = None) -> None:
        packaged = resources.files("schemas")
        self.own = {schema.name: schema for schema in _load_folder(packaged)}
        self.readers: dict[bytes, _Reader] = {}
        for folder in (packaged / "history", extra_dir):
            if folder is not None:
                self._add_writers(folder)
        for schema in self.own.values():
            self._add(schema, _Reader(schema.name, schema.parsed, None, make_plan(schema.parsed)))

    def _add_writers(self, folder: Traversable) -> None:
        for schema in _load_folder(folder):
            ours = self.own.get(schema.name)
            if ours is None:
                raise SettingsError(
                    f"{schema.source} holds the record {schema.name}, which is none of ours: {', '.join(self.own)}"
                )
            self._add(schema, _Reader(schema.name, schema.parsed, ours.parsed))

    def _add(self, schema: Schema, reader: _Reader) -> None:
        for header, libraries in schema.misprints.items():
            self.readers[header] = reader._replace(libraries=libraries)
        self.readers[schema.header] = reader

    def read(self, raw: bytes) -> tuple[_Reader, dict[str, Any]]:
        """The reader that fits the message, and the record. Raises UndecodableEventError."""
        reader = self.readers.get(raw[:HEADER_BYTES])
        if reader is None:
            raise _unknown(raw)
        if reader.plan is not None and (planned := reader.plan.read(raw, HEADER_BYTES)) is not None:
            return reader, planned
        stream = BytesIO(raw)
        stream.seek(HEADER_BYTES)
        try:
            record = cast("dict[str, Any]", schemaless_reader(stream, reader.writer, reader.reader))
        except Exception as error:  # fastavro raises any exception for malformed bytes
            raise UndecodableEventError(f"malformed {reader.record}: {_described(error)}") from error
        if stream.tell() != len(raw):
            raise UndecodableEventError(f"{len(raw) - stream.tell()} bytes follow the {reader.record}")
        return reader, record


def _unknown(raw: bytes) -> UndecodableEventError:
    """The error for bytes that start with no header of ours."""
    if not raw:
        return UndecodableEventError("the message is empty")
    if raw[:1] == _CONFLUENT_MARKER:
        return UndecodableEventError(
            "framed for a schema registry, which is not read: write Avro's single-object encoding"
        )
    if raw[:2] != MARKER:
        return UndecodableEventError(f"neither framing starts with the bytes {raw[:2].hex(' ')}")
    if len(raw) < HEADER_BYTES:
        return UndecodableEventError(f"the header is cut off after {len(raw)} bytes")
    return UndecodableEventError(f"no known schema has the fingerprint {raw[2:HEADER_BYTES].hex()}")


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error!s:.200}"


class EventCodec:
    """Events to single-object Avro and back. Immutable once built; safe to share between threads."""

    def __init__(
        self, schema_dir: Path | None = None, on_misprint: Callable[[str], None] = lambda _libraries: None
    ) -> None:
        """Load every schema. Raises SettingsError naming the file when one in `schema_dir` cannot be used.

        `on_misprint` is called for each event whose fingerprint is not its schema's, with the libraries that write such.
        """
        self._on_misprint = on_misprint
        self._schemas = _Schemas(schema_dir)
        self._own = {kind: self._schemas.own[record] for kind, record in _RECORD_OF_EVENT.items()}
        self._type_of_record = {record: str(kind) for kind, record in _RECORD_OF_EVENT.items()}
        self._data_fields = {kind: _data_fields(schema) for kind, schema in self._own.items()}

    @property
    def fingerprints(self) -> frozenset[bytes]:
        """Of every schema whose messages can be read."""
        readers = self._schemas.readers.items()
        return frozenset(header[len(MARKER) :] for header, reader in readers if not reader.libraries)

    def schema_of(self, kind: str) -> dict[str, Any]:
        """The record of an event type, with its documentation. Raises KeyError for an unknown type."""
        return self._own[kind].parsed

    def encode(self, event: Event) -> bytes:
        """Raises InvalidEventError when the type is unknown or `data` does not fit the type's schema.

        Fields that the schema does not have are refused; those with a default may be left out.
        """
        id_, account_id, kind, timestamp_ms, data = tuple[Any, ...](event)  # of whatever types; the schema judges them
        schema = self._own.get(kind)
        if schema is None:
            raise InvalidEventError(f"unknown event type {kind!r:.80}; known are {', '.join(EventType)}")
        record = {"id": id_, "accountId": account_id, "timestamp": timestamp_ms, "data": data}
        stream = BytesIO()
        stream.write(schema.header)
        try:
            schemaless_writer(stream, schema.parsed, record, strict_allow_default=True)
        except Exception as error:  # fastavro raises any exception for a value of a wrong type
            raise InvalidEventError(f"data does not fit the schema of {kind}: {_described(error)}") from error
        return stream.getvalue()

    def decode(self, raw: bytes) -> Event:
        """Raises UndecodableEventError when the bytes are not one whole event of a known schema.

        The event is not yet validated: see `core.validation`.
        """
        reader, record = self._schemas.read(raw)
        kind = self._type_of_record.get(reader.record)
        if kind is None:
            raise UndecodableEventError(f"a {reader.record} is no event")
        if reader.libraries:
            self._on_misprint(reader.libraries)
        data = record["data"]
        if reader.reader is not None:  # resolution leaves the writer's order
            data = {name: data[name] for name in self._data_fields[kind]}
        return Event(record["id"], record["accountId"], kind, record["timestamp"], data)


_SCHEMAS: Final = _Schemas()
#: The fields of each event type's `data`, in their order.
DATA_FIELDS: Final = {str(kind): _data_fields(_SCHEMAS.own[record]) for kind, record in _RECORD_OF_EVENT.items()}
_DELIVERY: Final = _SCHEMAS.own[_DELIVERY_RECORD]
_DELIVERY_FIELDS: Final = tuple(field["name"] for field in _DELIVERY.parsed["fields"])
_KINDS: Final = {
    kind: bytes((2 * index,))
    for index, kind in enumerate(
        next(field for field in _DELIVERY.parsed["fields"] if field["name"] == "kind")["type"]["symbols"]
    )
}


def encode_delivery(delivery: Delivery) -> bytes:
    """A delivery as it travels through Kafka."""
    return _head(delivery) + _tail(delivery)


def encode_fan_out(deliveries: Sequence[Delivery]) -> list[bytes]:
    """The deliveries of one event. They differ in their first two fields alone; the rest is encoded once."""
    tail = _tail(deliveries[0]) if deliveries else b""
    return [_head(delivery) + tail for delivery in deliveries]


def decode_delivery(raw: bytes) -> Delivery:
    """Raises UndecodableEventError when the bytes are not one whole delivery of a known schema."""
    reader, record = _SCHEMAS.read(raw)
    if reader.record != _DELIVERY_RECORD:
        raise UndecodableEventError(f"a {reader.record} is no delivery")
    if reader.reader is None:
        return Delivery._make(record.values())
    return Delivery._make(record[name] for name in _DELIVERY_FIELDS)


# Avro's binary encoding of our flat record, written by hand: routers spend most of their time here, and fastavro's writer,
# which walks the schema for every message, takes twice as long. Tests compare the bytes with fastavro's.


def _head(delivery: Delivery) -> bytes:
    return b"%b%b%b" % (_DELIVERY.header, _string(delivery.id), _string(delivery.webhook_id))


def _tail(delivery: Delivery) -> bytes:
    (
        _id, _webhook_id, account_id, event_id, event, timestamp, body, attempt, due_ms, kind, origin_ms, suspect,
        deployment, first_attempt,
    ) = delivery  # fmt: skip
    return b"".join(
        (
            _string(account_id), _string(event_id), _string(event), _string(timestamp), _long(len(body)), body,
            _long(attempt), _long(due_ms), _KINDS[kind], _long(origin_ms), b"\1" if suspect else b"\0",
            _string(deployment), _long(first_attempt),
        )
    )  # fmt: skip


def _string(text: str) -> bytes:
    encoded = text.encode()
    return _long(len(encoded)) + encoded


@lru_cache(maxsize=8192)  # lengths, and times in milliseconds: messages of one second share them
def _long(value: int) -> bytes:
    """Zigzag, then seven bits a byte, the lowest first."""
    rest = (value << 1) ^ (value >> 63)
    encoded = bytearray()
    while rest > 0x7F:  # noqa: PLR2004  # seven bits
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)
