"""TLS records as a receiver sends them: where each ends, and how many may come that carry nothing for us."""

from typing import Final

_HEADER_BYTES: Final = 5  # of a record (RFC 8446, 5.1): its type, two bytes of a version, and its length
# What a receiver may send over a connection's life that carries no data: handshakes take some ten thousand bytes,
# session tickets a few thousand. A short record counts as `_RECORD_BYTES`: OpenSSL works for 20 us on a change of keys.
_ALLOWANCE_BYTES: Final = 262_144
_RECORD_BYTES: Final = 2048


class TlsRecords:
    """Cuts what one connection receives."""

    __slots__ = ("_allowance", "_left", "_size", "partial_header")

    def __init__(self) -> None:
        self.partial_header = b""  #: what has arrived of a record's header, if less than all
        self._size = self._left = 0  # bytes of the record that arrives, and how many of them are still to come
        self._allowance = _ALLOWANCE_BYTES

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
            self._allowance -= max(self._size, _RECORD_BYTES)
        return self._allowance < 0
