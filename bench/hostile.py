"""The control API under attack, on a Kafka and a Postgres of its own: `make hostile`.

    python bench/hostile.py --count 20000 --schema-s 300 --seed 1

Four parts: the hand-made list (`hostile_api.py`), what the OpenAPI document suggests (`schema_attack.py`), whether the
time to refuse a key tells how much of it is right, and what others wait for while slow clients hold connections. The
first two must find nothing; the other two are measured and printed.
"""

import argparse
import json
import math
import os
import random
import secrets
import socket
import statistics
import string
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import hostile_api
import psycopg
import schema_attack
from running import bounded, script

from go2hooks.devstack.broker import Broker
from go2hooks.devstack.database import Database
from go2hooks.kafka.admin import ensure_topics
from go2hooks.postgres.api_keys import create_key
from go2hooks.postgres.migrate import migrate
from go2hooks.settings import Settings

LEAK_T = 4.5  # dudect's bound: beyond it two distributions of times are called different
TRIMMED = 0.9  # the slowest tenth is the machine's doing
SLOW_CONNECTIONS = (0, 200, 800)
_START_S = 60


@contextmanager
def api(directory: Path) -> Iterator[tuple[str, str, str]]:
    """A process of the API without limits on requests: its URL, and the keys of two accounts. Nothing is ever sent."""
    with ExitStack() as stack:
        database = stack.enter_context(Database(directory / "postgres"))
        broker = stack.enter_context(Broker(directory / "kafka"))
        database.ensure_database()
        migrate(database.url())
        ensure_topics(Settings(kafka_bootstrap_servers=broker.bootstrap))
        with psycopg.connect(database.url(), autocommit=True) as conn:
            keys = [create_key(conn, account).key for account in ("attacker", "victim")]
        port_file = directory / "port.json"
        env = os.environ | {
            "GO2HOOKS_DATABASE_URL": database.url(),
            "GO2HOOKS_KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap,
            "GO2HOOKS_SECRET_KEYS": b64encode(os.urandom(32)).decode(),
            "GO2HOOKS_API_PORT": "0",
            "GO2HOOKS_PORT_FILE": str(port_file),
            "GO2HOOKS_API_REQUESTS_PER_S": "0",
            "GO2HOOKS_API_FAILED_LOGINS_PER_MINUTE": "0",
            "GO2HOOKS_DELIVERY_TIMEOUT_S": "0.2",  # nobody answers a test event: so long is waited for one
            "GO2HOOKS_LOG_LEVEL": "error",
        }
        process = subprocess.Popen([sys.executable, "-P", "-m", "services.api"], env=env)
        stack.callback(process.wait, 40)
        stack.callback(process.terminate)
        deadline = time.monotonic() + _START_S
        while not port_file.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the API did not start")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{json.loads(port_file.read_bytes())['port']}/api/v1", *keys


def times_of_guesses(url: str, key: str, rounds: int, source: random.Random) -> tuple[list[float], list[float]]:
    """Seconds to refuse guesses that are wrong from the first character, and ones that are wrong in the last alone.

    As many different ones of each, mixed by chance: so both see the same machine and the same caches.
    """
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port)
    near = [key[:-1] + last for last in string.ascii_letters if last != key[-1]]
    far = [key[:4] + secrets.token_hex(20) for _ in near]
    turns = [0, 1] * rounds
    source.shuffle(turns)
    times: tuple[list[float], list[float]] = ([], [])
    for kind in turns:
        headers = {"Authorization": f"Bearer {source.choice((far, near)[kind])}"}
        began = time.perf_counter()
        connection.request("GET", f"{parts.path}/webhooks", headers=headers)
        answer = connection.getresponse()
        answer.read()
        times[kind].append(time.perf_counter() - began)
        if answer.status != 401:
            raise SystemExit(f"a wrong key was answered with {answer.status}")
    connection.close()
    return times


def welch_t(one: list[float], other: list[float]) -> float:
    """Welch's t of two samples, without the slowest tenth of each."""
    kept = [sorted(sample)[: math.ceil(len(sample) * TRIMMED)] for sample in (one, other)]
    spread = sum(statistics.variance(sample) / len(sample) for sample in kept)
    return (statistics.fmean(kept[0]) - statistics.fmean(kept[1])) / math.sqrt(spread)


def others_wait(url: str, key: str, slow: int, requests: int) -> list[float]:
    """Seconds of each honest request, on a connection of its own, while `slow` clients send a byte five times a second."""
    parts = urlsplit(url)
    address = (parts.hostname or "", parts.port or 80)
    held = [socket.create_connection(address) for _ in range(slow)]
    over = threading.Event()
    thread = threading.Thread(target=_trickle, args=(address, held, over))
    thread.start()
    took = []
    try:
        for _ in range(requests):
            began = time.perf_counter()
            hostile_api.call(url, key, "GET", "/webhooks")
            took.append(time.perf_counter() - began)
    finally:
        over.set()
        thread.join()
        for connection in held:
            connection.close()
    return sorted(took)


def _trickle(address: tuple[str, int], held: list[socket.socket], over: threading.Event) -> None:
    """Begin a request and never end it. Who is thrown out comes back."""
    while not over.wait(0.2):
        for number, connection in enumerate(held):
            try:
                connection.send(b"G")
            except OSError:
                connection.close()
                held[number] = socket.create_connection(address)


def _hand_made(url: str, key: str, other: str, options: argparse.Namespace) -> bool:
    report = hostile_api.run(url, key, other, options.count, options.seed)
    statuses = ", ".join(f"{status or 'closed'}: {count}" for status, count in sorted(report.statuses.items()))
    print(f"hand-made: {report.total} requests, {len(report.breaches)} breaches ({statuses})")
    for breach in report.breaches[:20]:
        print(f"  {breach}")
    return not report.breaches


def _by_schema(url: str, key: str, other: str, options: argparse.Namespace) -> bool:
    outcome = schema_attack.run(url, key, other, seed=options.seed, max_examples=1000, max_time_s=options.schema_s)
    print("\n".join(outcome.output.splitlines()[-6:]) if outcome.is_clean else outcome.output)
    return outcome.is_clean


def _guesses(url: str, key: str, rounds: int, seed: int) -> None:
    far, near = times_of_guesses(url, key, rounds, random.Random(seed))
    t = welch_t(far, near)
    medians = [statistics.median(sample) * 1e6 for sample in (far, near)]
    verdict = "no difference" if abs(t) < LEAK_T else "a DIFFERENCE"
    print(
        f"refusing a key: median {medians[0]:.1f} µs when all of it is wrong, {medians[1]:.1f} µs when its last character is; "
        f"t = {t:.2f} over {rounds} each: {verdict}"
    )


def _slow_clients(url: str, key: str, requests: int) -> None:
    for slow in SLOW_CONNECTIONS:
        took = others_wait(url, key, slow, requests)
        p50, p99 = (took[int(len(took) * share)] * 1000 for share in (0.5, 0.99))
        print(f"{slow} slow clients: others wait {p50:.1f} ms p50, {p99:.1f} ms p99, {took[-1] * 1000:.1f} ms at most")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000, help="hand-made requests")
    parser.add_argument("--schema-s", type=int, default=300, help="seconds for schemathesis")
    parser.add_argument("--guesses", type=int, default=5000, help="wrong keys of each kind")
    parser.add_argument("--honest", type=int, default=1000, help="requests of others per number of slow clients")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--time-limit", type=float, default=3600.0, help="seconds after which everything is ended")
    options = parser.parse_args()
    with (
        bounded(options.time_limit),
        tempfile.TemporaryDirectory(prefix="go2hooks-hostile-") as directory,
        api(Path(directory)) as (url, key, other),
    ):
        clean = [_hand_made(url, key, other, options), _by_schema(url, key, other, options)]
        _guesses(url, key, options.guesses, options.seed)
        _slow_clients(url, key, options.honest)
    return 0 if all(clean) else 1


if __name__ == "__main__":
    script(main)
