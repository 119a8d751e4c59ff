"""An HTTP proxy in threads: it knows CONNECT, wants a password, and tells everything that it was told where it refuses."""

import base64
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread

REFUSED = "refused.test"  #: the host that it opens no tunnel to


class ConnectProxy(ThreadingTCPServer):
    """Opens tunnels to 127.0.0.1, whatever the host is called."""

    daemon_threads = True

    def __init__(self, user: str, password: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://{user}:{password}@127.0.0.1:{self.server_address[1]}"
        self.authorization = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
        self.hosts: list[str] = []  #: that it was asked for


class _Handler(StreamRequestHandler):
    server: ConnectProxy

    def handle(self) -> None:
        lines: list[bytes] = []
        while line := self.rfile.readline().rstrip(b"\r\n"):
            lines.append(line)
        if not lines or not lines[0].startswith(b"CONNECT "):
            return  # such as the beginning of TLS
        host, _, port = lines[0].split(b" ")[1].decode().rpartition(":")
        self.server.hosts.append(host)
        if host == REFUSED or f"Proxy-Authorization: {self.server.authorization}".encode() not in lines:
            told = b"\r\n".join(lines)
            self.wfile.write(
                b'HTTP/1.1 407 %b\r\nProxy-Authenticate: Basic realm="x"\r\n\r\n%b' % (b" ".join(lines), told)
            )
            return
        with socket.socket() as there:
            if there.connect_ex(("127.0.0.1", int(port))):
                self.wfile.write(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
                return
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            Thread(target=_relay, args=(there, self.connection), daemon=True).start()
            _relay(self.connection, there)


def _relay(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def connect_proxy(user: str, password: str) -> Iterator[ConnectProxy]:
    with ConnectProxy(user, password) as proxy:
        Thread(target=proxy.serve_forever, daemon=True).start()
        yield proxy
        proxy.shutdown()
