"""A name server for tests: it answers what a test tells it, and keeps the questions."""

import asyncio
import ipaddress
import struct
from collections.abc import Callable
from typing import Any, Final

A: Final = 1
AAAA: Final = 28
_CNAME: Final = 5
_SOA: Final = 6
_AUTHORITATIVE: Final = 0x8400
_NO_SUCH_NAME: Final = 3
_HOUR_S: Final = 3600
_SOA_VALUES: Final = b"\0\0" + struct.pack("!5I", 1, *[_HOUR_S] * 4)  # the last one bounds negative answers

NOWHERE: Final = ""  #: what a zone says of a name that does not exist; an empty list is a name without addresses


class NameServer(asyncio.DatagramProtocol):
    """Answers A and AAAA questions by what `zone` says at that moment.

    The TTL of addresses is 0; that a name does not exist may be cached for an hour.
    """

    def __init__(self) -> None:
        #: name → addresses, the name that it is an alias of, NOWHERE, or None for a server that is dead
        self.zone: Callable[[str], list[str] | str | None] = lambda _name: []
        self.questions: list[tuple[str, int]] = []  #: name and record type
        self.target_of_alias: str | None = None  #: the IPv4 address that goes with an alias, in the same answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: Any) -> None:
        name, end = _name(data)
        kind = struct.unpack("!H", data[end : end + 2])[0]
        self.questions.append((name, kind))
        found = self.zone(name)
        if found is None:
            return
        records = self._records(found, kind)
        authority = [_record(_SOA, _SOA_VALUES, ttl_s=_HOUR_S)] if found == NOWHERE else []
        flags = _AUTHORITATIVE | (_NO_SUCH_NAME if found == NOWHERE else 0)
        header = data[:2] + struct.pack("!HHHHH", flags, 1, len(records), len(authority), 0)
        answer = header + data[12 : end + 4] + b"".join(records + authority)
        self._transport.sendto(answer, addr)  # type: ignore[attr-defined]

    def asked(self, kind: int) -> list[str]:
        """Names that were asked for records of this type."""
        return [name for name, asked in self.questions if asked == kind]

    def _records(self, found: list[str] | str, kind: int) -> list[bytes]:
        if isinstance(found, list):
            packed = [ipaddress.ip_address(address).packed for address in found]
            return [_record(kind, value) for value in packed if len(value) == (4 if kind == A else 16)]
        if found == NOWHERE:
            return []
        alias = b"".join(bytes([len(part)]) + part.encode() for part in found.split(".")) + b"\0"
        records = [_record(_CNAME, alias)]
        if kind == A and self.target_of_alias is not None:
            records.append(_record(A, ipaddress.ip_address(self.target_of_alias).packed, alias))
        return records


def _name(data: bytes) -> tuple[str, int]:
    parts, position = [], 12
    while data[position]:
        parts.append(data[position + 1 : position + 1 + data[position]].decode())
        position += 1 + data[position]
    return ".".join(parts).lower(), position + 1


def _record(kind: int, value: bytes, owner: bytes = b"\xc0\x0c", ttl_s: int = 0) -> bytes:
    """A record of the name that was asked for, unless `owner` says another."""
    return owner + struct.pack("!HHIH", kind, 1, ttl_s, len(value)) + value
