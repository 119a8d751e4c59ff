"""An HTTP proxy that knows CONNECT, and does what a test tells it instead."""

import asyncio
import contextlib
from collections.abc import Mapping

from scripted import Line, Script

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class Tunnels:
    """A script for a `Receiver`: opens tunnels to 127.0.0.1, by whatever name it is asked."""

    def __init__(self, answer: bytes = ESTABLISHED) -> None:
        self.answer = answer
        self.asked: list[bytes] = []  #: the heads of requests
        self.lines: list[Line] = []

    async def __call__(self, line: Line) -> None:
        self.lines.append(line)
        head = await line.reader.readuntil(b"\r\n\r\n")
        self.asked.append(head)
        port = int(head.split(b" ")[1].rpartition(b":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await self.establish(line)
        await _relay_both_ways(line, reader, writer)

    async def establish(self, line: Line) -> None:
        await line.send(self.answer)


async def _relay_both_ways(line: Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until either side hangs up."""
    ways = [asyncio.create_task(_relay(line.reader, writer)), asyncio.create_task(_relay(reader, line.writer))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        writer.transport.abort()
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


def answering_connect(answer: bytes, asked: list[bytes] | None = None, *, hold: bool = True) -> Script:
    """Says this to whoever asks for a tunnel, and no more; then waits for the sender to hang up, or does so itself."""

    async def script(line: Line) -> None:
        head = await line.reader.readuntil(b"\r\n\r\n")
        if asked is not None:
            asked.append(head)
        await line.send(answer)
        if hold:
            await line.until_closed()

    return script


def fields(head: bytes) -> Mapping[str, str]:
    """The header fields of a request."""
    lines = head.decode().split("\r\n")[1:-2]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
