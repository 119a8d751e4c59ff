"""A receiver that keeps every request as it came and answers as its test says, hostile answers included."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as its bytes were."""

    arrived: float  #: seconds since the epoch, when the body was complete
    line: str
    names: tuple[str, ...]  #: header names in the order and the spelling in which they came
    headers: dict[str, str]  #: by lower-case name
    body: bytes

    @property
    def delivery(self) -> str:
        return self.headers["x-webhook-delivery"]

    @property
    def attempt(self) -> int:
        return int(self.headers["x-webhook-attempt"])


@dataclass(frozen=True, slots=True)
class Reply:
    """What an endpoint answers. Without a status it says nothing: it hangs up, after `delay_s`."""

    status: int | None = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    delay_s: float = 0.0
    closes: bool = False


HANG = Reply(None, delay_s=60.0)
HANG_UP = Reply(None)


@dataclass
class Endpoint:
    """One path of the receiver. `answer` may be replaced at any time; it gets the request and says the reply or status."""

    url: str
    answer: Callable[[Request], Reply | int] = lambda _: 200
    requests: list[Request] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)  #: right before each request's reply, seconds since the epoch
    seen: set[str] = field(default_factory=set)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def wait_until(self, check: Callable[[], Any], within_s: float = WAIT_S) -> None:
        """Wait until `check` holds; it is asked anew after every request."""
        with self.changed:
            assert self.changed.wait_for(check, within_s), f"after {within_s:g} s: {self}"

    def wait(self, requests: int = 1, within_s: float = WAIT_S) -> list[Request]:
        """Wait for that many requests, and their replies."""
        self.wait_until(lambda: len(self.answered) >= requests, within_s)
        return self.requests

    def wait_deliveries(self, deliveries: int, within_s: float = WAIT_S) -> None:
        """Wait until requests of that many different deliveries have come."""
        self.wait_until(lambda: len(self.seen) >= deliveries, within_s)

    def duplicates(self) -> int:
        """How many requests repeated an attempt that had been made before."""
        attempts = Counter((request.delivery, request.attempt) for request in self.requests)
        return sum(attempts.values()) - len(attempts)

    def __repr__(self) -> str:
        recent = [(r.delivery[-6:], r.attempt) for r in self.requests[-12:]]
        return f"{self.url}: {len(self.requests)} requests of {len(self.seen)} deliveries, the last of them {recent}"


class Recorder:
    """An HTTP server in a thread of its own. Each `endpoint()` is a path of its own."""

    def __init__(self) -> None:
        self._endpoints: dict[str, Endpoint] = {}
        self._numbers = count(1)
        self._loop = asyncio.new_event_loop()
        self._port: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return self._port.result(10)

    def endpoint(self, answer: Callable[[Request], Reply | int] = lambda _: 200, query: str = "") -> Endpoint:
        path = f"/hook/{next(self._numbers)}{query}"
        return self._endpoints.setdefault(path, Endpoint(f"http://127.0.0.1:{self.port}{path}", answer))

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        connections: set[asyncio.Task[None]] = set()

        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            connections.add(task)
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):  # however a sender leaves
                await self._talk(reader, writer)
            connections.discard(task)
            writer.close()

        server = await asyncio.start_server(accepted, "127.0.0.1", 0, backlog=1000)
        self._port.set_result(server.sockets[0].getsockname()[1])
        await self._stopping.wait()
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await _read(reader)
            endpoint = self._endpoints[request.line.split(" ")[1]]
            with endpoint.changed:
                endpoint.requests.append(request)
                endpoint.seen.add(request.delivery)
                answer = endpoint.answer(request)
            reply = Reply(answer) if isinstance(answer, int) else answer
            if reply.delay_s:
                await asyncio.sleep(reply.delay_s)
            answered = time.time()  # before the sender can know, so that nothing that follows seems early
            if reply.status is not None:
                writer.write(_head(reply) + reply.body)
            with endpoint.changed:
                endpoint.answered.append(answered)
                endpoint.changed.notify_all()
            if reply.status is None or reply.closes:
                return
            await writer.drain()


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii")
    line, *fields = head.removesuffix("\r\n\r\n").split("\r\n")
    pairs = [(name, value.strip()) for name, _, value in (each.partition(":") for each in fields)]
    headers = {name.lower(): value for name, value in pairs}
    body = await reader.readexactly(int(headers["content-length"]))
    return Request(time.time(), line, tuple(name for name, _ in pairs), headers, body)


def _head(reply: Reply) -> bytes:
    fields = [("Content-Length", str(len(reply.body))), *reply.headers]
    return (f"HTTP/1.1 {reply.status} Said\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields) + "\r\n").encode()
