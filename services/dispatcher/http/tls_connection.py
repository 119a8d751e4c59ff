"""A connection over TLS: it is the protocol of the TCP transport itself, and hands OpenSSL the bytes through memory.

An event loop's own TLS transport asks OpenSSL again after everything it read, and catches the exception that says that
there is no more: about a twentieth of a delivery. Here it is seen beforehand that all has been read.
"""

import asyncio
import contextlib
import ssl
from typing import Final, cast

from services.dispatcher.http import failures
from services.dispatcher.http.connection import Connection, Limits, Origin, Owner

_READ_BYTES: Final = 65536  # handed on together at most
_HEADER_BYTES: Final = 5  # of a record: its type, two bytes of a version, and its length
# What a receiver may send over a connection's life that carries nothing for us: handshakes take some ten thousand bytes,
# tickets a few thousand. A short record counts for more than it has, since OpenSSL works for 20 us on a change of keys.
_ALLOWANCE_BYTES: Final = 262_144
_RECORD_BYTES: Final = 2048


class TlsConnection(Connection, asyncio.Protocol):
    """Ready when the handshake has ended."""

    __slots__ = (
        "_allowance",
        "_begun",
        "_fault",
        "_incoming",
        "_is_farewell",
        "_left",
        "_outgoing",
        "_record",
        "_secured",
        "_tls",
    )

    def __init__(self, owner: Owner, origin: Origin, limits: Limits, context: ssl.SSLContext) -> None:
        """Raises ValueError when the origin's host cannot be a name in TLS."""
        super().__init__(owner, origin, limits)
        self._secured: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=origin[1])
        self._fault: ssl.SSLError | None = None  # what OpenSSL, or we, could not go on after
        self._is_farewell = False  # the receiver has said that it sends no more
        self._begun = b""  # less than a header
        self._record = self._left = 0  # bytes of the record that arrives, and those of it that are still to come
        self._allowance = _ALLOWANCE_BYTES

    # --- what the sender calls

    async def ready(self) -> None:
        await self._secured

    def close(self) -> None:
        if self._transport is None:
            return
        with contextlib.suppress(ssl.SSLError):  # nobody waits for the receiver's farewell
            self._tls.unwrap()
        self._flush()
        self._transport.close()

    def _write(self, message: bytes) -> None:
        try:
            while message:  # a record is 16 KiB at most
                message = message[self._tls.write(message) :]
        except ssl.SSLError as error:
            self._fault = self._fault or error  # the first says why
            self.abort()
        else:
            self._flush()

    # --- what the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._shake_hands()

    def data_received(self, data: bytes) -> None:
        """Give OpenSSL one record after the other: of those that carry nothing for us it works off as many as it is given
        before it comes back, while everything else stands still.

        What has arrived belongs together, since bytes after an answer make it unfit, and so does a farewell.
        """
        if self._begun:
            data, self._begun = self._begun + data, b""
        heard = b""
        at = 0
        while at < len(data):
            end = self._cut(data, at)
            if end == at:
                self._begun = data[at:]
                break
            piece = self._take_in(data[at:end])
            at = end
            if piece:
                heard = heard + piece if heard else piece
                if len(heard) >= _READ_BYTES:
                    super().data_received(heard)
                    heard = b""
            elif not self._left:
                self._spend()
            if self._has_ended or self._is_closing():
                break
        if heard:
            super().data_received(heard)
        if self._has_ended and not self._is_closing():
            self._end()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.connected_at:
            super().connection_lost(self._fault or exc)
            return
        self._transport = None
        if not self._secured.done():
            self._secured.set_exception(exc or ConnectionResetError())

    def _is_refusal(self, exc: Exception | None) -> bool:
        """In TLS 1.3 a receiver judges our side of the handshake after we have finished, and one that refuses may just hang up.

        What tells this from one that hangs up on the request: a server that is content sends session tickets first.
        """
        if self.idle_since or self._received or self._is_farewell:
            return False
        if not (exc is None or isinstance(exc, ConnectionError)):
            return False
        return self._tls.version() == "TLSv1.3" and not (self._tls.session and self._tls.session.has_ticket)

    def _is_lasting(self) -> bool:
        return not self._has_ended and super()._is_lasting()

    # --- the rest is ours

    def _cut(self, data: bytes, at: int) -> int:
        """Where the record ends in which `at` lies, or what there is of it; `at` itself when there is less than a header."""
        if not self._left:
            if len(data) - at < _HEADER_BYTES:
                return at
            self._record = self._left = _HEADER_BYTES + (data[at + 3] << 8) + data[at + 4]
        end = min(at + self._left, len(data))
        self._left -= end - at
        return end

    def _take_in(self, piece: bytes) -> bytes:
        """What a record, or a part of one, holds for us."""
        self._incoming.write(piece)
        if not self._secured.done():
            self._shake_hands()
        return self._read() if self.connected_at else b""

    def _spend(self) -> None:
        """A record has ended that carried nothing for us."""
        self._allowance -= max(self._record, _RECORD_BYTES)
        if self._allowance < 0 and self._fault is None:
            self._fault = ssl.SSLError(failures.TLS_FLOOD)

    @property
    def _has_ended(self) -> bool:
        """Whether nothing more is to be read."""
        return self._is_farewell or self._fault is not None

    def _is_closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def _end(self) -> None:
        if self._fault is None:
            self.eof_received()
            self.close()
            return
        if not self._secured.done():
            self._secured.set_exception(self._fault)
        self._owner.forget(self)
        self.abort()

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            self._secured.set_exception(error)
            self._flush()  # says why
            if self._transport is not None:
                self._transport.close()
        else:
            self._flush()
            if self._transport is not None:
                super().connection_made(self._transport)
            self._secured.set_result(None)

    def _read(self) -> bytes:
        try:
            data = self._tls.read(_READ_BYTES)  # one record, whose rest is not asked for: there is none
        except ssl.SSLWantReadError:  # its rest is on its way, or it was one of TLS's own
            return b""
        except ssl.SSLError as error:
            self._fault = error
            return b""
        self._is_farewell = not data
        return data

    def _flush(self) -> None:
        if self._outgoing.pending and self._transport is not None and not self._transport.is_closing():
            self._transport.write(self._outgoing.read())
