"""A connection over TLS: it is the protocol of the TCP transport itself, and passes OpenSSL the bytes in memory.

An event loop's own TLS transport calls OpenSSL once more after everything that it has read, and catches the exception
that says that there is no more. This costs about a twentieth of a delivery. Here the records' lengths say that all has
been read.
"""

import asyncio
import contextlib
import ssl
from typing import Final, cast

from services.dispatcher.http import failures
from services.dispatcher.http.connection import Connection, Origin, Owner
from services.dispatcher.http.response import ExchangeLimits
from services.dispatcher.http.tls_records import FloodLimits, TlsRecords

_READ_BYTES: Final = 65536  # passed on together at most; a record has 16 KiB at most (RFC 8446, 5.1)
_FLOOD_LIMITS: Final = FloodLimits()


class TlsConnection(Connection, asyncio.Protocol):
    """Ready when the handshake is complete."""

    __slots__ = ("_incoming", "_is_farewell", "_outgoing", "_records", "_secured", "_tls")

    def __init__(self, owner: Owner, origin: Origin, limits: ExchangeLimits, context: ssl.SSLContext) -> None:
        """Raises ValueError when the origin's host cannot be a name in TLS."""
        super().__init__(owner, origin, limits)
        self._secured: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=origin[1])
        self._records = TlsRecords(_FLOOD_LIMITS)
        self._is_farewell = False  # the receiver has announced that it sends no more (close_notify)

    # --- called by the sender

    async def ready(self) -> None:
        await self._secured

    def close(self) -> None:
        if self._transport is None:
            return
        with contextlib.suppress(ssl.SSLError):  # nobody waits for the receiver's close_notify
            self._tls.unwrap()
        self._flush()
        super().close()

    def _write(self, message: bytes) -> None:
        try:
            while message:  # `write` takes one record at a time
                message = message[self._tls.write(message) :]
        except ssl.SSLError as error:
            self._loss = self._loss or error  # the first says why
            self.abort()
        else:
            self._flush()

    # --- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._shake_hands()

    def data_received(self, data: bytes) -> None:
        """Give OpenSSL one record at a time: it processes all that carry no data at once, which would block the loop.

        What has arrived is passed on together: bytes or a close_notify after an answer make the connection unusable.
        """
        records = self._records
        if records.partial_header:
            data, records.partial_header = records.partial_header + data, b""
        heard = b""
        at = 0
        while at < len(data) and not (self._has_ended or self._is_closing()):
            end = records.cut(data, at)
            if end == at:
                break
            piece = self._take_in(data[at:end])
            at = end
            if piece:
                heard = heard + piece if heard else piece
                if len(heard) >= _READ_BYTES:
                    super().data_received(heard)
                    heard = b""
            elif records.is_flood() and self._loss is None:
                self._loss = ssl.SSLError(failures.TLS_FLOOD)
        if heard:
            super().data_received(heard)
        if self._has_ended and not self._is_closing():
            self._finish()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if not self._secured.done():
            self._secured.set_exception(self._loss or ConnectionResetError())

    # --- internal

    def _lose(self, exc: Exception | None) -> None:
        if self._loss is None and (exc is None or isinstance(exc, ConnectionError)) and self._is_refused():
            exc = failures.RefusedHandshakeError()
        super()._lose(exc)

    def _is_refused(self) -> bool:
        """In TLS 1.3 a receiver judges our side of the handshake after we have finished, and may refuse by hanging up.

        A server that accepts sends session tickets first, also one that then hangs up on the request.
        """
        if not self.connected_at or self.idle_since or self._response.has_begun or self._is_farewell:
            return False
        return self._tls.version() == "TLSv1.3" and not (self._tls.session and self._tls.session.has_ticket)

    def _is_lasting(self) -> bool:
        return not self._has_ended and super()._is_lasting()

    def _take_in(self, piece: bytes) -> bytes:
        """The data in a record, or in a part of one."""
        self._incoming.write(piece)
        if not self._secured.done():
            self._shake_hands()
        return self._read() if self.connected_at else b""

    @property
    def _has_ended(self) -> bool:
        """Whether nothing more is to be read."""
        return self._is_farewell or self._loss is not None

    def _is_closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def _finish(self) -> None:
        """The receiver, or an error, has ended TLS."""
        if self._loss is None:
            self.eof_received()
            self.close()
        else:
            self._lose(None)
            self.abort()

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            self._secured.set_exception(error)
            self._flush()  # the alert that says why
            super().close()
        else:
            self._flush()
            if self._transport is not None:
                super().connection_made(self._transport)
            self._secured.set_result(None)

    def _read(self) -> bytes:
        try:
            data = self._tls.read(_READ_BYTES)  # one record; OpenSSL is not asked again, since there is no more
        except ssl.SSLWantReadError:  # its rest is yet to come, or it carried no data
            return b""
        except ssl.SSLError as error:
            self._loss = error
            return b""
        self._is_farewell = not data
        return data

    def _flush(self) -> None:
        if self._outgoing.pending and not self._is_closing():
            self._transport.write(self._outgoing.read())  # type: ignore[union-attr]  # it is not closing
