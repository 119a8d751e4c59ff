"""How fast one core sends: a bare `aiohttp.ClientSession` loop, and our two senders, against the same receiver.

Every client signs each request as the dispatcher does (two HMACs, ten headers). The receiver is nginx, or a small
Python process where nginx is not installed; it answers 200 and runs on another core where there is one.
"""

import argparse
import asyncio
import json
import os
import platform
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import trustme

from go2hooks.core.domain.outcome import Answer
from go2hooks.core.security.addresses import AddressPolicy
from go2hooks.core.security.request import SignedRequest
from go2hooks.core.security.signing import body_signature, generate_secret, standard_signature
from go2hooks.core.security.target import parse_target
from services.dispatcher.http import ExchangeLimits, HttpClient, Resolver, Sender
from services.dispatcher.http.aiohttp_sender import AiohttpSender
from services.dispatcher.http.guard import Guard
from services.dispatcher.http.resolver import AresLookup
from services.dispatcher.http.tls import client_context

try:
    from uvloop import run
except ImportError:  # Windows
    from asyncio import run

BODY = json.dumps(
    {
        "event": "click",
        "timestamp": "2024-01-01T12:00:00Z",
        "data": {
            "linkId": "lnk_0123456789",
            "slug": "launch",
            "domain": "go2.example",
            "destinationUrl": "https://example.com/a/rather/long/landing/page?utm_source=newsletter",
            "country": "DE",
            "city": "Berlin",
            "device": "mobile",
            "browser": "Safari",
            "os": "iOS",
            "referrer": "https://news.example/",
        },
    },
    separators=(",", ":"),
).encode()
SECRET = generate_secret(os.urandom(32))
Send = Callable[[tuple[tuple[str, str], ...]], Awaitable[None]]


def sign(number: int) -> tuple[tuple[str, str], ...]:
    """The headers of delivery `number`, both signatures included."""
    delivery, seconds = f"dlv_{number:030x}", int(time.time())
    return (
        ("Content-Type", "application/json"),
        ("X-Webhook-ID", "wh_0123456789abcdef"),
        ("X-Webhook-Event", "click"),
        ("X-Webhook-Signature", body_signature(SECRET, BODY)),
        ("X-Webhook-Timestamp", "2024-01-01T12:00:00Z"),
        ("X-Webhook-Delivery", delivery),
        ("X-Webhook-Attempt", "1"),
        ("webhook-id", delivery),
        ("webhook-timestamp", str(seconds)),
        ("webhook-signature", standard_signature([SECRET], delivery, seconds, BODY)),
        ("User-Agent", "Go2-Webhooks/bench"),
    )


async def measure(send: Send, connections: int, count: int) -> dict[str, float]:
    """Requests per second and CPU microseconds per request over `count` requests, after a warm-up."""
    numbers: Iterator[int] = iter(())

    async def work() -> None:
        for number in numbers:
            await send(sign(number))

    async def round_of(total: int) -> None:
        nonlocal numbers
        numbers = iter(range(total))
        await asyncio.gather(*(work() for _ in range(connections)))

    await round_of(connections * 4)
    wall, cpu = time.perf_counter(), time.process_time()
    await round_of(count)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"per_s": count / wall, "cpu_us": cpu / count * 1e6}


async def bare(url: str, ca: Path, connections: int, count: int) -> dict[str, float]:
    """What everybody would write first."""
    context = client_context(ca)
    connector = aiohttp.TCPConnector(limit=0, ssl=context)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:

        async def send(headers: tuple[tuple[str, str], ...]) -> None:
            async with session.post(url, data=BODY, headers=dict(headers)) as response:
                await response.read()
                assert response.status == 200

        return await measure(send, connections, count)


def ours(make: Callable[..., Sender]) -> Callable[[str, Path, int, int], Awaitable[dict[str, float]]]:
    async def client(url: str, ca: Path, connections: int, count: int) -> dict[str, float]:
        guard = Guard(AddressPolicy(allow_insecure=True))
        sender = make(
            ExchangeLimits(10.0, 16384, 1024, 2.0),
            resolver=Resolver(lookup := AresLookup(), close_lookup=lookup.close),
            guard=guard,
            ssl_context=client_context(ca),
        )
        target = parse_target(url)

        async def send(headers: tuple[tuple[str, str], ...]) -> None:
            response = await sender.send(SignedRequest(target, headers, BODY))
            assert isinstance(response, Answer), response
            assert response.status == 200

        try:
            return await measure(send, connections, count)
        finally:
            await sender.close()

    return client


CLIENTS = {"aiohttp.ClientSession": bare, "AiohttpSender": ours(AiohttpSender), "HttpClient": ours(HttpClient)}

NGINX = """
daemon off; worker_processes 1; pid {dir}/pid; error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 75; client_body_temp_path {dir}/body;
  proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  server {{ listen 127.0.0.1:{http}; location / {{ return 200 "ok"; }} }}
  server {{ listen 127.0.0.1:{https} ssl; ssl_certificate {dir}/cert.pem; ssl_certificate_key {dir}/cert.pem;
            location / {{ return 200 "ok"; }} }}
}}
"""


@contextmanager
def receiver(kind: str, core: int | None) -> Iterator[tuple[dict[str, str], Path]]:
    """URLs by scheme of a running receiver, and the CA that vouches for it."""
    ports = {scheme: _free_port() for scheme in ("http", "https")}
    with tempfile.TemporaryDirectory(prefix="go2hooks-bench-") as name:
        directory = Path(name)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(directory / "ca.pem"))
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(directory / "cert.pem"))
        (directory / "nginx.conf").write_text(NGINX.format(dir=name, **ports))
        command = ["nginx", "-p", name, "-c", str(directory / "nginx.conf"), "-g", "user root;"]
        if kind == "python":
            certificate = str(directory / "cert.pem")
            command = [sys.executable, __file__, "--serve", certificate, str(ports["http"]), str(ports["https"])]
        elif os.getuid() != 0:
            command = command[:-2]
        process = subprocess.Popen(command)
        try:
            if core is not None:
                os.sched_setaffinity(process.pid, {core})
            _await_port(ports["https"])
            yield {scheme: f"{scheme}://localhost:{port}/hook" for scheme, port in ports.items()}, directory / "ca.pem"
        finally:
            process.terminate()
            process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _await_port(port: int, within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


class LightReceiver(asyncio.Protocol):
    """Answers 200 to everything that looks like the end of one of our requests."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if data.endswith(BODY[-8:]):
            self._transport.write(b"HTTP/1.1 200 OK\r\nServer: light\r\nContent-Length: 2\r\n\r\nok")  # type: ignore[attr-defined]


async def serve(certificate: str, http_port: str, https_port: str) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    loop = asyncio.get_running_loop()
    await loop.create_server(LightReceiver, "127.0.0.1", int(http_port))
    await loop.create_server(LightReceiver, "127.0.0.1", int(https_port), ssl=context)
    await asyncio.Event().wait()


def pin() -> int | None:
    """Keep this process on one core; the core for the receiver, where there is another."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]})
    return cores[1] if len(cores) > 1 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10000, help="requests per measurement (default 10000)")
    parser.add_argument(
        "--repeat", type=int, default=3, help="measurements per client; the median is shown (default 3)"
    )
    parser.add_argument("--connections", default="16,64,256", help="requests under way at once (default 16,64,256)")
    parser.add_argument("--schemes", default="http,https")
    parser.add_argument("--clients", default=",".join(CLIENTS))
    parser.add_argument(
        "--receiver", choices=["nginx", "python"], default="nginx" if shutil.which("nginx") else "python"
    )
    parser.add_argument("--json", type=Path, help="write the results there too")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        run(serve(*options.serve))
        return
    results = []
    with receiver(options.receiver, pin()) as (urls, ca):
        print(
            f"receiver {options.receiver}, {options.count} requests x {options.repeat}, load {os.getloadavg()[0]:.1f}"
        )
        for scheme in options.schemes.split(","):
            for connections in map(int, options.connections.split(",")):
                results += _compare(options, urls[scheme], ca, scheme, connections)
    if options.json:
        options.json.write_text(
            json.dumps(
                {
                    "machine": platform.platform(),
                    "results": results,
                },
                indent=2,
            )
        )


def _compare(options: argparse.Namespace, url: str, ca: Path, scheme: str, connections: int) -> list[dict[str, object]]:
    names = options.clients.split(",")
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(options.repeat):
        for name in names:  # in turn, so that what else the machine does meets all alike
            runs[name].append(run(CLIENTS[name](url, ca, connections, options.count)))
    rows: list[dict[str, object]] = []
    medians = {
        name: {key: statistics.median(result[key] for result in runs[name]) for key in ("per_s", "cpu_us")}
        for name in names
    }
    base = medians[names[0]]
    for name, median in medians.items():
        per_s, cpu_us = median["per_s"], median["cpu_us"]
        ratio, cpu_ratio = per_s / base["per_s"], base["cpu_us"] / cpu_us
        row = f"{scheme:6}{connections:5}  {name:22}{per_s:9.0f}/s {ratio:6.2f}x   {cpu_us:6.1f} us of CPU {cpu_ratio:6.2f}x"
        print(row, flush=True)
        rows.append(
            {
                "scheme": scheme,
                "connections": connections,
                "client": name,
                **median,
                "ratio": ratio,
                "cpu_ratio": cpu_ratio,
            }
        )
    return rows


if __name__ == "__main__":
    main()
