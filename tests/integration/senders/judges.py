"""curl and Node as judges of raw answers: which status each of them reports."""

import contextlib
import json
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from raw_answers import Raw
from scripted import reset_at_close

HOLDS_S = 0.3  #: how long a connection that is held open is: judges wait for its end
_PROCESSES = 6
_PATIENCE_S = 60
# The head counts, so the body is not waited for. Who listens for upgrades gets the 101, which is no answer.
_NODE = """
const http = require("http"), [port, count] = process.argv.slice(1).map(Number);
const one = (n) => new Promise((done) => {
  const request = http.request({ host: "127.0.0.1", port, path: `/${n}`, method: "POST", agent: false }, (answer) => {
    done(answer.statusCode);
    answer.on("error", () => 0);
    answer.destroy();
  });
  request.on("upgrade", (answer, socket) => (done(null), socket.destroy()));
  for (const end of ["error", "close"]) request.on(end, () => done(null));
  request.end("{}");
});
Promise.all([...Array(count).keys()].map(one)).then((statuses) => console.log(JSON.stringify(statuses)));
"""
_CURL = """url="http://127.0.0.1:{port}/{number}"
data="{{}}"
output="/dev/null"
silent
write-out="{number} %{{http_code}} %{{exitcode}}\\n"
"""
# Exit codes of curl's with which it may have printed a status, though the head was not whole or was refused.
_CURL_REFUSED = {1, 8, 43, 52}


@contextlib.contextmanager
def serving(answers: Sequence[Raw]) -> Iterator[int]:
    """The port of a server that answers `POST /n` with the n-th answer, and `POST /n/slowly` with it byte by byte."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError, ValueError):  # the client hung up
                _answer(self.request, answers)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 512

        def shutdown_request(self, request: socket.socket) -> None:
            request.close()  # without a shutdown, which would spoil a reset

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def _answer(line: socket.socket, answers: Sequence[Raw]) -> None:
    line.settimeout(_PATIENCE_S)
    with line.makefile("rb") as request:
        _, path, _ = request.readline().split()
        lengths = [
            int(field[15:]) for field in iter(request.readline, b"\r\n") if field.lower().startswith(b"content-length:")
        ]
        request.read(lengths[0])
    _, number, *slowly = path.decode().split("/")
    answer = answers[int(number)]
    if slowly:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for position in range(len(answer.data)):
            line.sendall(answer.data[position : position + 1])
    else:
        line.sendall(answer.data)
    if answer.then == "resets":
        time.sleep(0.05)  # for what was sent to be read
        reset_at_close(line)
    elif answer.then == "holds":
        line.settimeout(HOLDS_S)
        while line.recv(65536):
            pass


def ask_node(port: int, count: int) -> list[int | None]:
    """The status that Node reports for each; None where it reports none."""
    command = ["node", "-e", _NODE, "--", str(port), str(count)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=_PATIENCE_S).stdout)


def ask_curl(port: int, count: int) -> list[int | None]:
    """Likewise of curl. A few processes side by side, each with its share one after the other."""
    with ThreadPoolExecutor(_PROCESSES) as pool:
        shares = pool.map(lambda k: _ask_curl(port, range(k, count, _PROCESSES)), range(_PROCESSES))
        statuses = {number: status for share in shares for number, status in share.items()}
    return [statuses[number] for number in range(count)]


def _ask_curl(port: int, numbers: Sequence[int]) -> dict[int, int | None]:
    statuses: dict[int, int | None] = {}
    while len(statuses) < len(numbers):  # some errors end curl, whatever there is left to do
        options = "next\n".join(_CURL.format(port=port, number=number) for number in numbers[len(statuses) :])
        command = ["curl", "-q", "-K", "-"]
        printed = subprocess.run(
            command, input=options, text=True, capture_output=True, check=False, timeout=_PATIENCE_S
        )
        assert printed.stdout, printed.stderr
        for number, status, code in map(str.split, printed.stdout.splitlines()):
            statuses[int(number)] = None if int(code) in _CURL_REFUSED else int(status) or None
    return statuses
