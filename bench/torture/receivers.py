"""All receivers, in one process of their own, each on its port with its temper; what they saw and gave goes to a log.

`python receivers.py PLAN.json LOG`: the plan is a list of {number, temper}; ports are printed as one JSON line. `heal` on
stdin makes all of them healthy, end of input ends it. Log: one JSON list per line, times in seconds of the wall clock:
["got", n, time, number, delivery, attempt, webhook id, event, body, signature, the Standard Webhooks headers (id, timestamp,
signature), process] · ["gave", n, time, status or "reset"] ·
["away" | "back", time, number].
"""

import asyncio
import contextlib
import json
import random
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import uvloop

from bench.torture import pulse

STANDARD = ("webhook-id", "webhook-timestamp", "webhook-signature")
AWAY_S = (3.0, 8.0)
PRESENT_S = (6.0, 20.0)
SLOW_S = (0.2, 2.0)
HANG_S = 6.0  # beyond the dispatcher's timeout


class Log:
    """Appends; the file is whole once we have ended."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._next = 0

    def number(self) -> int:
        self._next += 1
        return self._next

    def write(self, *line: Any) -> None:
        self._file.write(json.dumps(line) + "\n")


class Receiver:
    """One webhook's receiver."""

    def __init__(self, number: int, temper: str, seed: str, log: Log) -> None:
        self.number = number
        self.temper = temper
        self.port = 0
        self._rng = random.Random(f"{seed} {number}")
        self._log = log
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()

    async def come_and_go(self) -> None:
        while True:
            await asyncio.sleep(self._rng.uniform(*PRESENT_S))
            if self.temper != "away":
                return
            self._log.write("away", time.time(), self.number)
            self.close()
            await asyncio.sleep(self._rng.uniform(*AWAY_S))
            await self.open()
            self._log.write("back", time.time(), self.number)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while await self._answer(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the dispatcher is gone, or we were told to go away
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        lines = [line.partition(":") for line in head.split("\r\n")[1:] if line]
        headers = {name.strip().lower(): value.strip() for name, _, value in lines}
        body = await reader.readexactly(int(headers["content-length"]))
        request = self._log.number()
        self._log.write(
            "got", request, time.time(), self.number, headers["x-webhook-delivery"], int(headers["x-webhook-attempt"]),
            headers["x-webhook-id"], headers["x-webhook-event"], body.decode(), headers["x-webhook-signature"],
            [headers[name] for name in STANDARD], headers.get("x-torture-process", "?/0"),
        )  # fmt: skip
        answer, delay_s = self._choose()
        if delay_s:
            await asyncio.sleep(delay_s)
        if answer == "reset":
            self._log.write("gave", request, time.time(), answer)
            writer.transport.abort()
            return False
        # Noted before it is written: what was written may have arrived, though we be cut off meanwhile.
        self._log.write("gave", request, time.time(), answer)
        writer.write(f"HTTP/1.1 {answer} X\r\nContent-Length: 2\r\n\r\nok".encode())
        await writer.drain()
        return True

    def _choose(self) -> tuple[int | str, float]:
        chance = self._rng.random()
        match self.temper:
            case "flaky" if chance < 0.1:
                return 500, 0.0
            case "slow":
                return 200, HANG_S if chance < 0.02 else self._rng.uniform(*SLOW_S)
            case "resetting" if chance < 0.25:
                return "reset", 0.0
            case "dying":
                return 503, 0.0
            case _:
                return 200, 0.0


async def main(plan: Path, log_path: Path) -> None:
    pulse.start(log_path.with_name("held_up.jsonl"), "receivers")
    settings = json.loads(plan.read_text())  # noqa: ASYNC240  # nothing else runs yet
    with log_path.open("w") as file:
        log = Log(file)
        receivers = [Receiver(hook["number"], hook["temper"], settings["seed"], log) for hook in settings["hooks"]]
        for receiver in receivers:
            await receiver.open()
        sys.stdout.write(json.dumps([receiver.port for receiver in receivers]) + "\n")
        sys.stdout.flush()
        roaming = [asyncio.create_task(r.come_and_go()) for r in receivers if r.temper == "away"]
        while line := await asyncio.to_thread(sys.stdin.readline):
            if line.strip() == "heal":
                for receiver in receivers:
                    receiver.temper = "healthy"
                log.write("healed", time.time())
        for task in roaming:
            task.cancel()
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
