"""The WSGI server: waitress in one process, with errors in our envelope, limits for slow clients, and a drain."""

import errno
import select
import socket
import time
from typing import Any, Final

from flask import Flask
from waitress import create_server, wasyncore
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.task import ErrorTask
from waitress.utilities import ServerNotImplemented

from go2hooks.core.errors import SettingsError
from go2hooks.runtime import Shutdown
from go2hooks.settings import Settings
from services.api.answers import encode, failure_body
from services.api.errors import describe

_BACKLOG: Final = 1024


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises SettingsError that names the variable to change."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            remedy = f"port {port} is taken: set GO2HOOKS_API_PORT to another port, or to 0 for a free one"
        else:
            remedy = f"{error.strerror}: check GO2HOOKS_API_HOST and GO2HOOKS_API_PORT"
        raise SettingsError(f"cannot listen on {host}:{port}: {remedy}") from error
    return listener


class ApiServer:
    """Serves `app` on a bound socket, in the calling thread and `api_threads` others."""

    def __init__(self, app: Flask, listener: socket.socket, settings: Settings) -> None:
        self._sockets: dict[int, Any] = {}  # waitress keeps the listener, the connections and its trigger here
        self._server = create_server(
            app,
            self._sockets,
            sockets=[listener],
            threads=settings.api_threads,
            asyncore_use_poll=True,
            connection_limit=1000,
            channel_timeout=15,  # a request must have arrived in whole after this, and an idle connection is closed
            cleanup_interval=1,
            backlog=_BACKLOG,
            max_request_header_size=16384,
            max_request_body_size=settings.api_max_body_bytes + 1,
            ident="go2hooks",
            expose_tracebacks=False,
            log_socket_errors=False,
        )
        self._server.channel_class = _Channel
        self.port: int = listener.getsockname()[1]

    def serve(self, shutdown: Shutdown) -> None:
        """Serve until the shutdown begins; then accept no new connections, answer what has arrived, and return."""
        shutdown.on_request(self._server.pull_trigger)
        while not shutdown.requested:
            self._turn(1.0)
        self._accept_waiting()
        wasyncore.dispatcher.close(self._server)
        self._turn(0)  # reads what has arrived on the connections
        patience = time.monotonic() + 2.0  # the rest of incomplete requests may arrive until then
        while self._is_busy(half_sent=time.monotonic() < patience) and shutdown.remaining_s() > 0:
            self._turn(0.05)
        self._server.task_dispatcher.shutdown(timeout=shutdown.remaining_s())
        wasyncore.close_all(self._sockets)

    def _accept_waiting(self) -> None:
        """Accept the connections in the listener's queue: closing it would reset them."""
        waiting = select.poll()
        waiting.register(self._server.socket, select.POLLIN)
        for _ in range(_BACKLOG):
            if not waiting.poll(0):
                break
            self._server.handle_accept()

    def _turn(self, timeout_s: float) -> None:
        wasyncore.loop(timeout=timeout_s, use_poll=True, map=self._sockets, count=1)

    def _is_busy(self, *, half_sent: bool) -> bool:
        """Whether a request is being answered, an answer is being sent or, with `half_sent`, a request is incomplete."""
        return any(
            channel.requests or channel.total_outbufs_len or (half_sent and channel.request is not None)
            for channel in self._server.active_channels.values()
        )


class _ErrorTask(ErrorTask):  # type: ignore[misc]  # waitress is untyped
    """Answers in our envelope for requests that waitress refuses."""

    def execute(self) -> None:
        error = self.request.error
        # waitress answers 501 to an unknown Transfer-Encoding: that is the client's fault.
        status, reason = (400, "Bad Request") if isinstance(error, ServerNotImplemented) else (error.code, error.reason)
        code, message = describe(status)
        body = encode({"success": False, "error": failure_body(code, message)})
        self.status = f"{status} {reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.channel.lingers = True
        self.write(body)


class _Parser(HTTPRequestParser):  # type: ignore[misc]
    """Refuses what Python cannot parse, such as `http://[::1/` or a length of 5,000 digits; waitress expects no ValueError."""

    def parse_header(self, header_plus: bytes) -> None:
        try:
            super().parse_header(header_plus)
        except ValueError:
            raise ParsingError("Unreadable") from None


class _Channel(HTTPChannel):  # type: ignore[misc]
    """A connection. A slow request does not keep it open, and a client that is refused while sending gets the answer."""

    error_task_class = _ErrorTask
    parser_class = _Parser
    lingers = False  # whether to read and drop what arrives after the last answer
    _lingering_until: float | None = None
    _began = 0.0
    last_activity: float

    def received(self, data: bytes) -> Any:
        """Count a request's time from its first byte, not from its latest one: against Slowloris attacks."""
        if self.request is None:
            self._began = self.last_activity
        result = super().received(data)
        if self.request is not None:
            self.last_activity = self._began
        return result

    def handle_close(self) -> None:
        """Read remaining bytes before closing: closing with unread bytes resets the connection, and the answer is lost."""
        if not self.lingers or not self.connected:
            super().handle_close()
            return
        self.lingers = False
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            super().handle_close()
        else:
            self._lingering_until = time.monotonic() + 3.0

    def readable(self) -> Any:
        return super().readable() if self._lingering_until is None else True

    def writable(self) -> Any:
        return super().writable() if self._lingering_until is None else self._has_lingered(self._lingering_until)

    def handle_read(self) -> None:
        if self._lingering_until is None:
            super().handle_read()
        elif not self._discard():
            super().handle_close()

    def handle_write(self) -> None:
        if self._lingering_until is None:
            super().handle_write()
        else:
            super().handle_close()

    def _discard(self) -> bool:
        """False when the client has closed."""
        try:
            return bool(self.socket.recv(65536))
        except BlockingIOError:
            return True
        except OSError:
            return False

    @staticmethod
    def _has_lingered(until: float) -> bool:
        return time.monotonic() > until
