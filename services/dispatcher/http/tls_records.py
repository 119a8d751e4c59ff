"""TLS records as a receiver sends them: where each ends, and how many may come that carry nothing for us."""

from dataclasses import dataclass
from typing import Final

_HEADER_BYTES: Final = 5  # of a record (RFC 8446, 5.1): its type, two bytes of a version, and its length


@dataclass(frozen=True, slots=True)
class FloodLimits:
    """What a receiver may send over a connection's life that carries no data."""

    bytes: int = 262_144  #: handshakes take some ten thousand, session tickets a few thousand
    least_per_record: int = 2048  #: a shorter record counts as this: OpenSSL works for 20 us on a change of keys


class TlsRecords:
    """Cuts what one connection receives."""

    __slots__ = ("_allowance", "_least", "_left", "_size", "partial_header")

    def __init__(self, limits: FloodLimits) -> None:
        self.partial_header = b""  #: what has arrived of a record's header, if less than all
        self._size = self._left = 0  # bytes of the record that arrives, and how many of them are still to come
        self._allowance = limits.bytes
        self._least = limits.least_per_record

    def cut(self, data: bytes, at: int) -> int:
        """Where the record ends that `at` lies in, or what there is of it; `at` itself if its header is cut."""
        if not self._left:
            if len(data) - at < _HEADER_BYTES:
                self.partial_header = data[at:]
                return at
            self._size = self._left = _HEADER_BYTES + (data[at + 3] << 8) + data[at + 4]
        end = min(at + self._left, len(data))
        self._left -= end - at
        return end

    def is_flood(self) -> bool:
        """Count what was cut last, which carried no data. True when the receiver has sent too many such records."""
        if not self._left:  # the record is complete
            self._allowance -= max(self._size, self._least)
        return self._allowance < 0
