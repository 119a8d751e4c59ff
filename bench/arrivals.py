"""A receiver in one process that knows when each event was sent: it answers, counts and times arrivals.

The path is `/<group>/<behaviour>/<anything>`: arrivals are counted by group and answered by behaviour. The event's send
time (microseconds of the monotonic clock, which all processes of a machine share) stands in the payload's slug.
Commands come as lines on stdin, one JSON line each goes out; the end of stdin ends it.
"""

import argparse
import asyncio
import gc
import json
import socket
import ssl
import struct
import sys
import time
from array import array
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import uvloop

SLUG = b'"slug":"b'
SLUG_DIGITS = 16
_DELIVERY = b"X-Webhook-Delivery: "
_ATTEMPT = b"X-Webhook-Attempt: "
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
_HUGE = b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n"
_HUGE_CHUNK = b"x" * 65536
_HEADERS = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"
_HEADERS_CHUNK = b"".join(b"X-Filler-%04d: %s\r\n" % (n, b"x" * 1005) for n in range(64))  # 64 KiB
_HEADERS_CHUNKS = 160  # 10 MiB in all
_DRIP_S = 0.1
_LINGER_NOT = struct.pack("ii", 1, 0)  # close with a reset
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}


class Group:
    """What arrived for one group of paths. Times in microseconds of the monotonic clock."""

    def __init__(self) -> None:
        self.latencies = array("q")
        self.arrived = array("q")  # beside each latency
        self.ids: set[bytes] = set()
        self.first_us = 0
        self.last_us = 0
        self.refused: dict[bytes, int] = {}  # delivery -> when its first attempt was answered with 503
        self.lateness = array("q")

    def report(self) -> dict[str, Any]:
        return {
            "arrivals": len(self.latencies),
            "unique": len(self.ids),
            "first_us": self.first_us,
            "last_us": self.last_us,
            "latency_us": percentiles(self.latencies),
            "retry_after_us": percentiles(self.lateness),
        }


def percentiles(values: Sequence[int]) -> dict[str, float]:
    """Of what came, by nearest rank, with mean and maximum; empty without values."""
    if not values:
        return {}
    ordered = sorted(values)
    found: dict[str, float] = {
        name: ordered[min(len(ordered) - 1, int(q * len(ordered)))] for name, q in _QUANTILES.items()
    }
    return found | {"mean": sum(ordered) / len(ordered), "max": ordered[-1], "count": len(ordered)}


class Receiver(asyncio.Protocol):
    """One connection. It trusts its sender's HTTP: a head, Content-Length, a body."""

    groups: ClassVar[defaultdict[bytes, Group]] = defaultdict(Group)
    routes: ClassVar[dict[bytes, tuple[Group, Callable[["Receiver", bytes], None]]]] = {}
    connections = 0
    most_connections = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self._rest = b""
        self._drains: Callable[[], None] | None = None
        cls = type(self)
        cls.connections += 1
        cls.most_connections = max(cls.most_connections, cls.connections)

    def connection_lost(self, _error: Exception | None) -> None:
        type(self).connections -= 1
        self._drains = None

    def resume_writing(self) -> None:
        if self._drains is not None:
            self._drains()

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        while data:
            end = data.find(b"\r\n\r\n") + 4
            if end == 3:
                break
            at = data.index(b"Content-Length: ") + 16
            size = end + int(data[at : data.index(b"\r", at)])
            if len(data) < size:
                break
            self._request(data if len(data) == size else data[:size], end)
            data = data[size:]
        self._rest = data

    def _request(self, data: bytes, body_at: int) -> None:
        now_us = time.monotonic_ns() // 1000
        path = data[5 : data.index(b" ", 5)]
        route = self.routes.get(path) or self._route(path)
        group = route[0]
        at = data.find(SLUG, body_at)
        if at >= 0:
            at += len(SLUG)
            group.arrived.append(now_us)
            group.latencies.append(now_us - int(data[at : at + SLUG_DIGITS]))
        at = data.index(_DELIVERY) + len(_DELIVERY)
        group.ids.add(data[at : data.index(b"\r", at)])
        group.first_us = group.first_us or now_us
        group.last_us = now_us
        route[1](self, data)

    def _route(self, path: bytes) -> tuple[Group, Callable[["Receiver", bytes], None]]:
        _, group, behaviour, *_rest = path.split(b"/")
        route = self.groups[group], behaviour_of(behaviour.decode())
        self.routes[path] = route
        return route

    # --- behaviours

    def ok(self, _data: bytes) -> None:
        self.transport.write(_OK)

    def never(self, _data: bytes) -> None:
        """No answer at all."""

    def fail_first(self, data: bytes) -> None:
        """503 to a delivery's first attempt, then 200, noting how long the retry took to come."""
        at = data.index(_DELIVERY) + len(_DELIVERY)
        delivery = data[at : data.index(b"\r", at)]
        group = self.routes[data[5 : data.index(b" ", 5)]][0]
        now_us = time.monotonic_ns() // 1000
        if data.find(_ATTEMPT + b"1\r") >= 0:
            group.refused[delivery] = now_us
            self.transport.write(_UNAVAILABLE)
            return
        if (refused_us := group.refused.pop(delivery, None)) is not None:
            group.lateness.append(now_us - refused_us)
        self.transport.write(_OK)

    def fail(self, _data: bytes) -> None:
        self.transport.write(_UNAVAILABLE)

    def drip(self, _data: bytes) -> None:
        self._drip(0)

    def _drip(self, sent: int) -> None:
        if sent < len(_OK) and not self.transport.is_closing():
            self.transport.write(_OK[sent : sent + 1])
            asyncio.get_running_loop().call_later(_DRIP_S, self._drip, sent + 1)

    def huge(self, _data: bytes) -> None:
        """A body of a gibibyte, as fast as it is taken."""
        self._drains = self._pour
        self.transport.write(_HUGE)
        self._pour()

    def _pour(self) -> None:
        while self.transport.get_write_buffer_size() == 0 and not self.transport.is_closing():
            self.transport.write(_HUGE_CHUNK)

    def headers(self, _data: bytes) -> None:
        """Ten mebibytes of headers before the body."""
        left = _HEADERS_CHUNKS

        def pour() -> None:
            nonlocal left
            while left and self.transport.get_write_buffer_size() == 0 and not self.transport.is_closing():
                self.transport.write(_HEADERS_CHUNK)
                left -= 1
            if not left:
                self._drains = None
                self.transport.write(b"\r\nok")

        self._drains = pour
        self.transport.write(_HEADERS)
        pour()

    def reset(self, _data: bytes) -> None:
        connection: socket.socket = self.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        self.transport.abort()


def behaviour_of(name: str) -> Callable[[Receiver, bytes], None]:
    """`ok`, `never`, `drip`, `huge`, `headers`, `reset`, `fail`, `fail_first`, or `d<ms>`: 200 after that many milliseconds."""
    if name.startswith("d") and name[1:].isdigit():
        delay_s = int(name[1:]) / 1000
        return lambda receiver, _data: later(receiver, delay_s)
    behaviours = {f.__name__: f for f in (Receiver.ok, Receiver.never, Receiver.drip, Receiver.huge, Receiver.reset)}
    further = {"fail": Receiver.fail, "fail_first": Receiver.fail_first, "headers": Receiver.headers}
    return (behaviours | further)[name]


def later(receiver: Receiver, delay_s: float) -> None:
    asyncio.get_running_loop().call_later(delay_s, _answer, receiver)


def _answer(receiver: Receiver) -> None:
    if not receiver.transport.is_closing():
        receiver.transport.write(_OK)


class Control:
    """`count`, `report`, `reset`, `traced <group>` and `ids <group>` on stdin."""

    def __init__(self, ended: asyncio.Event) -> None:
        self._ended = ended

    async def serve(self) -> None:
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            self._say(self._obey(line.decode().strip()))
        self._ended.set()

    def _obey(self, command: str) -> Any:
        if command == "count":
            return {name.decode(): len(group.latencies) for name, group in Receiver.groups.items()}
        if command == "reset":
            Receiver.groups.clear()
            Receiver.routes.clear()
            Receiver.most_connections = Receiver.connections
            gc.collect()
            return {}
        command, _, name = command.partition(" ")
        if command == "traced":
            group = Receiver.groups[name.encode()]
            return list(zip(group.arrived, group.latencies, strict=True))
        if command == "ids":
            return [each.decode() for each in Receiver.groups[name.encode()].ids]
        return {name.decode(): group.report() for name, group in Receiver.groups.items()} | {
            "": {"connections": Receiver.connections, "most_connections": Receiver.most_connections}
        }

    @staticmethod
    def _say(value: Any) -> None:
        sys.stdout.write(json.dumps(value) + "\n")
        sys.stdout.flush()


def listening_socket(*, every_address: bool) -> socket.socket:
    """On 127.0.0.1; or on every 127.x.y.z address, which only the loopback device reaches."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if every_address:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    listener.bind(("0.0.0.0" if every_address else "127.0.0.1", 0))
    listener.listen(4096)
    listener.settimeout(0)
    return listener


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--certificate", help="key and certificate chain for https")
    parser.add_argument("--every-address", action="store_true", help="listen on all of 127.0.0.0/8")
    options = parser.parse_args()
    loop = asyncio.get_running_loop()
    http = listening_socket(every_address=options.every_address)
    await loop.create_server(Receiver, sock=http)
    ports = {"http": http.getsockname()[1]}
    if options.certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(options.certificate)
        https = listening_socket(every_address=options.every_address)
        await loop.create_server(Receiver, sock=https, ssl=context)
        ports["https"] = https.getsockname()[1]
    gc.disable()  # nothing here makes cycles; a pause would be taken for latency of the system under test
    ended = asyncio.Event()
    control = Control(ended)
    serving = asyncio.create_task(control.serve())
    control._say({"ports": ports})  # noqa: SLF001  # the greeting
    await ended.wait()
    await serving


if __name__ == "__main__":
    uvloop.run(main())
