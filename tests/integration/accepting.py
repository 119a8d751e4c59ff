"""What a test's TCP proxies have in common: connections that are accepted and served in threads, and come to an end."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress


class Acceptor:
    """Listens on a free port of loopback; each connection is given to `serve` in a thread of its own, and closed after it.

    An OSError that `serve` raises, such as that its own server is away, is that connection's end and nobody else's.
    """

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Accept no more; what is open ends with either side."""
        with suppress(OSError):  # not every system knows it of a listener
            self._listener.shutdown(socket.SHUT_RDWR)  # closed alone, it would accept one more
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _address = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._attend, args=(client,), daemon=True).start()

    def _attend(self, client: socket.socket) -> None:
        with suppress(OSError), client:
            self._serve(client)


def break_off(*connections: socket.socket) -> None:
    """End them for whoever waits for them, here and on the other side; closed alone, a thread would wait on."""
    for connection in connections:
        with suppress(OSError):  # it may have ended by itself
            connection.shutdown(socket.SHUT_RDWR)


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Forward until either ends, then end both."""
    with suppress(OSError):
        while chunk := source.recv(65_536):
            sink.sendall(chunk)
    break_off(source, sink)
