"""Receivers that do exactly what a test tells them."""

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator

import trustme

from go2hooks.core.security.request import SignedRequest
from go2hooks.core.security.target import Target, parse_target
from services.dispatcher.http.few_workers import QueueLimits
from services.dispatcher.http.response import ExchangeLimits

AT_ONCE = QueueLimits.within(timeout_s=10.0, idle_s=60.0).at_once  #: connections that are made at a time
STALE_WITHIN_S = ExchangeLimits(10.0, 1, 1, 1.0).stale_within_s  #: a request is sent again within it
BODY = b'{"event":"click"}'
HEADERS = (("Content-Type", "application/json"), ("X-Webhook-Attempt", "1"), ("User-Agent", "Go2-Webhooks/test"))
HANGING_S = 30.0  #: after so long a test is taken to hang; none waits for it
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Line:
    """The receiver's end of one connection."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number  #: counts the receiver's connections from 1
        self.reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        """The next request, whole. Raises IncompleteReadError when the sender hangs up."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        return head + await self.reader.readexactly(int(length.partition(b":")[2]))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def until_closed(self) -> None:
        """Wait for the sender to hang up."""
        while await self.reader.read(65536):
            pass

    def reset(self) -> None:
        """Hang up with a RST."""
        reset_at_close(self.writer.get_extra_info("socket"))
        self.writer.transport.abort()


Script = Callable[[Line], Awaitable[None]]


class Receiver:
    """A server that runs a script for every connection; when the script ends, the connection is closed."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.lines: list[Line] = []
        self.requests: list[bytes] = []
        self.open = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> "Receiver":
        self._server = await asyncio.start_server(self._accept, host, 0, ssl=context)
        self.scheme = "https" if context else "http"
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def target(self, host: str = "localhost", path: str = "/hook") -> Target:
        return parse_target(f"{self.scheme}://{host}:{self.port}{path}")

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def until(self, condition: Callable[[], bool], within_s: float = HANGING_S) -> None:
        async with asyncio.timeout(within_s):
            while not condition():  # noqa: ASYNC110  # conditions of all kinds, with a deadline
                await asyncio.sleep(0.01)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        line = Line(len(self.lines) + 1, reader, writer)
        self.lines.append(line)
        self.open += 1
        try:
            await self.script(line)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass  # the sender hung up, as senders may
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
                await writer.wait_closed()


def answering(answer: bytes) -> Script:
    """Answers every request of a connection with the same bytes."""

    async def script(line: Line) -> None:
        while True:
            await line.request()
            await line.send(answer)

    return script


@contextlib.contextmanager
def blocking_server(context: ssl.SSLContext, *, abrupt: bool = False) -> Iterator[Target]:
    """A TLS server for one connection, in a thread: unlike asyncio's, it says by an alert why it refuses a handshake.

    Having refused it reads until the sender hangs up, so that the alert arrives whatever the sender was writing. An
    `abrupt` one resets the connection instead: whether the alert is read before that is luck.
    """

    def serve() -> None:
        with contextlib.suppress(OSError):
            accepted, _ = server.accept()
            accepted.settimeout(HANGING_S)
            with context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False) as line:
                try:
                    line.do_handshake()
                    line.recv(65536)
                    line.sendall(OK)
                except ssl.SSLError:
                    reset_at_close(line) if abrupt else _read_to_the_end(line)

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(HANGING_S)
        thread = threading.Thread(target=serve)
        thread.start()
        yield parse_target(f"https://localhost:{server.getsockname()[1]}/hook")
        thread.join()


def _read_to_the_end(line: ssl.SSLSocket) -> None:
    line.shutdown(socket.SHUT_WR)  # from here on it is a plain socket
    line.settimeout(1.0)  # aiohttp on uvloop has read the alert by then, and does not hang up
    while line.recv(65536):
        pass


def reset_at_close(line: socket.socket) -> None:
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return context


def post(target: Target, body: bytes = BODY) -> SignedRequest:
    return SignedRequest(target, HEADERS, body)
