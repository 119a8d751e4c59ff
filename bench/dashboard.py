"""Every page of the dashboard with 5,000 webhooks and 1,000,000 attempts stored: p50 and p95 at the server, and the weight.

    python bench/dashboard.py --attempts 1000000 --rounds 40

One client asks for each page in turn, so that a page's time is its own and not that of waiting for others.
"""

import argparse
import re
import time
from http.client import HTTPConnection
from urllib.parse import urlencode

import psycopg
from running import bounded, script, stack

from go2hooks.demo.ledger import percentile
from go2hooks.postgres.api_keys import create_key
from go2hooks.postgres.session import Session

_WEBHOOKS = 5000
_ACCOUNT = "acc_bench"
_LIMIT_S = 280

_MAKE_WEBHOOKS = """
INSERT INTO webhooks (id, account_id, name, url, events, sealed_secret, is_active, consecutive_failures, disabled_at, disabled_reason, created_at)
SELECT 'wh_' || lpad(n::text, 6, '0'), %s, 'Webhook ' || n, 'https://hooks' || n || '.example.com/go2', ARRAY['click'], %s, n %% 7 <> 2,
       CASE WHEN n %% 7 = 2 THEN 10 ELSE 0 END, CASE WHEN n %% 7 = 2 THEN now() END,
       CASE WHEN n %% 7 = 2 THEN '10 consecutive failed attempts' END, now() - n * interval '10 minutes'
FROM generate_series(1, %s::int) n"""
_MAKE_ATTEMPTS = """
INSERT INTO attempts (webhook_id, created_at, delivery_id, attempt, account_id, event_id, event, kind, state, status_code, duration_ms, error_message,
                      attempted_at)
SELECT 'wh_' || lpad((CASE WHEN n %% 10 = 0 THEN 1 ELSE 1 + n %% %s::int END)::text, 6, '0'), at, 'dlv_' || lpad(to_hex(n), 24, '0'), 1, %s, 'evt_' || n,
       'click', 'event', CASE WHEN n %% 17 = 0 THEN 'failed' ELSE 'delivered' END, CASE WHEN n %% 17 = 0 THEN 500 ELSE 204 END, 40,
       CASE WHEN n %% 17 = 0 THEN 'The receiver answered 500.' END, at
FROM (SELECT n, now() - (%s::bigint - n) * interval '0.25 seconds' AS at FROM generate_series(%s::bigint, %s::bigint) n) made"""


def fill(url: str, attempts: int) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        for back in range(4 + attempts // 345_600):
            conn.execute("SELECT attempts_create_partition(current_date - %s::int)", [back])
        conn.execute("SELECT attempt_rollups_maintain(current_date - g, 0, 400) FROM generate_series(0, 3) g")
        conn.execute(_MAKE_WEBHOOKS, [_ACCOUNT, b"x" * 60, _WEBHOOKS])
        for first in range(1, attempts + 1, 250_000):
            conn.execute(_MAKE_ATTEMPTS, [_WEBHOOKS, _ACCOUNT, attempts, first, min(first + 249_999, attempts)])
        conn.execute("ANALYZE")


class Client:
    """Signed in."""

    def __init__(self, url: str, key: str) -> None:
        self._connection = HTTPConnection(url.rpartition("/")[2], timeout=30)
        self._cookie = ""
        _, page = self.ask("GET", "/sign-in")
        token = re.search(r'name="csrf_token" value="([^"]*)"', page)[1]
        self.ask("POST", "/sign-in", urlencode({"csrf_token": token, "key": key}))

    def ask(self, method: str, path: str, form: str | None = None) -> tuple[int, str]:
        headers = {"Cookie": self._cookie, "Content-Type": "application/x-www-form-urlencoded"}
        self._connection.request(method, path, form, headers)
        answer = self._connection.getresponse()
        if cookie := answer.headers.get("Set-Cookie"):
            self._cookie = cookie.partition(";")[0]
        return answer.status, answer.read().decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attempts", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    limits = {"GO2HOOKS_API_REQUESTS_PER_S": "0", "GO2HOOKS_API_PORT": "0", "GO2HOOKS_LOG_LEVEL": "error"}
    with bounded(_LIMIT_S), stack() as running:
        with Session.connect(running.database.url(), name="bench") as connection:
            key = create_key(connection, _ACCOUNT).key
        began = time.monotonic()
        fill(running.database.url(), options.attempts)
        print(
            f"{_WEBHOOKS:,} webhooks and {options.attempts:,} attempts made in {time.monotonic() - began:.0f} s",
            flush=True,
        )
        with running.api(**limits) as url:
            measure(Client(url, key), options)


def measure(client: Client, options: argparse.Namespace) -> None:
    busy, quiet = "/webhooks/wh_000001", "/webhooks/wh_002500"
    delivery = f"dlv_{options.attempts // 10 * 10:024x}"
    paths = [
        "/", "/?page=150", "/?search=2500", "/?state=disabled&sort=name", "/?sort=-consecutiveFailures", "/webhooks/new", busy,
        f"{busy}?range=30d", quiet, f"{busy}/edit", f"{busy}/replays", f"{busy}/log", f"{busy}/deliveries",
        f"{busy}/deliveries?status=failed", f"{quiet}/deliveries?status=skipped", "/deliveries", "/deliveries?status=failed",
        "/deliveries?status=skipped", "/deliveries?id=evt_1000", f"{busy}/deliveries/{delivery}", "/deliveries/rows?perPage=25", "/verify",
    ]  # fmt: skip
    print(f"{'page':<52} {'p50':>8} {'p95':>8} {'weight':>10}")
    for path in paths:
        times = []
        for _ in range(options.rounds):
            began = time.perf_counter()
            status, page = client.ask("GET", path)
            times.append((time.perf_counter() - began) * 1000)
        times.sort()
        said = "" if status == 200 else f"  {status}"
        print(
            f"{path[:52]:<52} {percentile(times, 0.5):>5.0f} ms {percentile(times, 0.95):>5.0f} ms {len(page) / 1024:>6.1f} KiB{said}"
        )


if __name__ == "__main__":
    script(main)
