"""A connection over TLS: it is the protocol of the TCP transport itself, and hands OpenSSL the bytes through memory.

An event loop's own TLS transport asks OpenSSL again after everything it read, and catches the exception that says that
there is no more: about a twentieth of a delivery. Here it is seen beforehand that all has been read.
"""

import asyncio
import contextlib
import ssl
from typing import Final, cast

from services.dispatcher.senders.connection import Connection, Limits, Origin, Owner

_READ_BYTES: Final = 65536  # handed on together at most


class TlsConnection(Connection, asyncio.Protocol):
    """Ready when the handshake has ended."""

    __slots__ = ("_fault", "_incoming", "_is_farewell", "_outgoing", "_secured", "_tls")

    def __init__(self, owner: Owner, origin: Origin, limits: Limits, context: ssl.SSLContext) -> None:
        """Raises ValueError when the origin's host cannot be a name in TLS."""
        super().__init__(owner, origin, limits)
        self._secured: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=origin[1])
        self._fault: ssl.SSLError | None = None  # what OpenSSL could not go on after
        self._is_farewell = False  # the receiver has said that it sends no more

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
        self._incoming.write(data)
        if not self._secured.done():
            self._shake_hands()
        if self.connected_at and self._fault is None:
            self._read_all()
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
        if self.idle_since or self._received or not (exc is None or isinstance(exc, ConnectionError)):
            return False
        return self._tls.version() == "TLSv1.3" and not (self._tls.session and self._tls.session.has_ticket)

    # --- the rest is ours

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

    def _read_all(self) -> None:
        is_all = False
        while not is_all and self._transport is not None and not self._transport.is_closing():
            data, is_all = self._read()
            if data:
                super().data_received(data)
        if self._fault is not None:
            self.abort()
        elif self._is_farewell:
            self.eof_received()
            self.close()

    def _read(self) -> tuple[bytes, bool]:
        """What has arrived, and whether that is all: it belongs together, since bytes after an answer make it unfit."""
        data = b""
        try:
            while len(data) < _READ_BYTES:
                piece = self._tls.read(_READ_BYTES)
                if not piece:
                    self._is_farewell = True
                    return data, True
                data = data + piece if data else piece
                if not self._incoming.pending and not self._tls.pending():
                    return data, True
        except ssl.SSLWantReadError:  # the rest of a record is on its way
            return data, True
        except ssl.SSLError as error:
            self._fault = error
            return data, True
        return data, False

    def _flush(self) -> None:
        if self._outgoing.pending and self._transport is not None:
            self._transport.write(self._outgoing.read())
