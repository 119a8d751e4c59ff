"""A TCP proxy that delays, stalls or cuts what passes through it, on a thread of its own.

`lossy` is packet loss as TCP shows it to its users: a lost segment holds up all that follows in its connection until it
is sent again, 0.2 s later, and twice as long each time that it is lost anew.
"""

import asyncio
import random
import threading
from typing import Final, Literal

import uvloop

Mode = Literal["pass", "delay", "stall", "cut", "lossy"]
DELAY_S: Final = 0.15
LOSS: Final = 0.05  # of all chunks
LOST_AGAIN: Final = 0.3
RESEND_S: Final = 0.2
RESEND_MAX_S: Final = 3.2


class FaultProxy:
    """Forwards 127.0.0.1:`port` to 127.0.0.1:`target_port`. `mode` may be set at any time, from any thread."""

    def __init__(self, target_port: int, loop: asyncio.AbstractEventLoop) -> None:
        self.target_port = target_port
        self._loop = loop
        self._mode: Mode = "pass"
        self._rng = random.Random(target_port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._passing = asyncio.Event()
        server = asyncio.run_coroutine_threadsafe(self._open(), loop).result(10)
        self.port: int = server.sockets[0].getsockname()[1]

    def set_mode(self, mode: Mode) -> None:
        self._loop.call_soon_threadsafe(self._change, mode)

    async def _open(self) -> asyncio.Server:
        self._passing.set()
        return await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512)

    def _change(self, mode: Mode) -> None:
        self._mode = mode
        if mode == "stall":
            self._passing.clear()
        else:
            self._passing.set()
        if mode == "cut":
            for writer in list(self._writers):
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode == "cut":
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        try:
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        finally:
            self._writers -= {writer, back}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await self._passing.wait()
                if self._mode == "delay":
                    await asyncio.sleep(DELAY_S)
                elif self._mode == "lossy":
                    await asyncio.sleep(self._resend_s())
                writer.write(data)
                await writer.drain()
        except (OSError, RuntimeError):
            pass  # cut, by us or by an end: the other direction is cut below
        finally:
            writer.transport.abort() if self._mode == "cut" else writer.close()

    def _resend_s(self) -> float:
        """How long this chunk is held up; 0 for most."""
        if self._rng.random() >= LOSS:
            return 0.0
        wait_s = RESEND_S
        while self._rng.random() < LOST_AGAIN and wait_s < RESEND_MAX_S:
            wait_s *= 2
        return wait_s


def start_loop() -> asyncio.AbstractEventLoop:
    """An event loop on a thread of its own, for all proxies; it ends with the process."""
    loop = uvloop.new_event_loop()
    threading.Thread(target=loop.run_forever, name="proxies", daemon=True).start()
    return loop
