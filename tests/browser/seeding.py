"""An account with webhooks in every state, deliveries that failed in several ways, a replay: real ones, of a real stack."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from struct import Struct
from typing import Any

import psycopg
from recording import HANG_UP, Recorder, Reply
from running import Account
from waiting import eventually

from go2hooks.core.domain.rollup import bucket_of

FAILURES = (
    Reply(500, (("Content-Type", "text/plain"),), b"ERROR: could not connect to the database\n"),
    Reply(301, (("Location", "https://www.example.com/webhooks/go2"),)),
    Reply(429, (("Retry-After", "1"),), b"slow down"),
    HANG_UP,
)


@dataclass(frozen=True)
class Seeded:
    """Webhooks and deliveries by what they show."""

    account: Account
    healthy: dict[str, Any]
    disabled: dict[str, Any]
    failing: dict[str, Any]
    delivered: dict[str, Any]
    failed: dict[str, Any]
    retried: dict[str, Any]

    def pages(self) -> dict[str, str]:
        """The address of each page that is to be had by a GET, by name."""
        healthy, disabled = (f"/webhooks/{each['id']}" for each in (self.healthy, self.disabled))
        return {
            "webhooks": "/",
            "webhooks-none": "/?search=nothing+is+called+so",
            "webhook-new": "/webhooks/new",
            "webhook": healthy,
            "webhook-disabled": disabled,
            "webhook-edit": f"{healthy}/edit",
            "webhook-replays": f"{healthy}/replays",
            "webhook-log": f"{healthy}/log",
            "webhook-deliveries": f"{healthy}/deliveries",
            "deliveries": "/deliveries",
            "deliveries-none": "/deliveries?id=evt_none",
            "delivery": f"{healthy}/deliveries/{self.retried['id']}",
            "delivery-failed": f"{disabled}/deliveries/{self.failed['id']}",
            "verify": "/verify",
            "operators": "/operators",
            "operators-dead": "/operators/dead-letters/deliveries",
            "not-there": "/webhooks/wh_none",
        }


def seed(account: Account, receiver: Recorder) -> Seeded:
    healthy, disabled, failing = (_webhook(account, receiver, *each) for each in _WEBHOOKS)
    account.stack.wait_routed()
    endpoint = _endpoints[disabled["id"]]
    endpoint.answer = lambda request: FAILURES[(request.attempt - 1) % len(FAILURES)]
    _endpoints[healthy["id"]].answer = lambda request: Reply(
        200 if request.attempt > 1 or "qr" not in request.headers["x-webhook-event"] else 503, (), b'{"received":true}'
    )
    _endpoints[failing["id"]].answer = lambda _: Reply(503, (), b"upstream timed out")
    for event in ("click", "link.created", "qr.scanned"):
        account.emit(event)
    account.emit("link.created")
    history = _settled(account, healthy, 4)
    (retried, *_) = [each for each in history if each["attempts"] > 1]
    eventually(lambda: not account.webhook(disabled)["isActive"])
    account.emit("click")
    failures = _settled(account, disabled, 5)
    _past(account, healthy, disabled)
    since = (datetime.now(UTC) - timedelta(minutes=30)).isoformat()
    replay = account.call("POST", f"/webhooks/{healthy['id']}/replays", {"from": since, "only": "all"}).data
    path = f"/webhooks/{healthy['id']}/replays/{replay['id']}"
    eventually(lambda: account.call("GET", path).data["status"] == "done")
    return Seeded(
        account, *(account.webhook(each) for each in (healthy, disabled, failing)), delivered=history[0],
        failed=max(failures, key=lambda each: (each["event"] == "click", each["attempts"])), retried=retried,
    )  # fmt: skip


_WEBHOOKS = (
    ("Click tracker", ["click", "link.created", "qr.scanned"], {"description": "Feeds the campaign report."}),
    ("Order system", ["*"], {"headers": {"X-Team": "orders"}, "rateLimit": 50}),
    ("Data lake", ["qr.scanned"], {"metadata": {"owner": "analytics"}}),
)
_endpoints: dict[str, Any] = {}


def _webhook(
    account: Account, receiver: Recorder, name: str, events: list[str], settings: dict[str, Any]
) -> dict[str, Any]:
    endpoint = receiver.endpoint()
    made = account.call("POST", "/webhooks", {"name": name, "url": endpoint.url, "events": events} | settings).data
    _endpoints[made["id"]] = endpoint
    return made


def _settled(account: Account, webhook: dict[str, Any], deliveries: int) -> list[dict[str, Any]]:
    def look() -> list[dict[str, Any]]:
        found = account.history(webhook)
        is_over = not {each["status"] for each in found} & {"pending", "retrying"}
        return found if len(found) >= deliveries and is_over else []

    return eventually(look)


def _past(account: Account, *webhooks: dict[str, Any]) -> None:
    """A day of statistics, which nobody can wait for: by the hour, and the last hour by the minute."""
    pair = Struct("<HI")
    histogram = b"".join(
        pair.pack(bucket_of(ms), count) for ms, count in ((24.0, 40), (38.0, 25), (80.0, 6), (210.0, 2))
    )
    now = int(time.time())
    rows = []
    for number, webhook in enumerate(webhooks):
        for step, steps in ((3600, 30 * 24), (300, 300), (60, 75), (86400, 30)):
            for back in range(1, steps):
                wave = 60 + 35 * ((back * 7 + number * 5) % 11) // 10
                failed = (wave // 9 if back % 6 == 2 else 0) if number == 0 else wave // 2
                rows.append(
                    (webhook["id"], step, (now // step - back) * step, wave - failed, failed, failed // 3, histogram)
                )
    account.stack.query("SELECT attempt_rollups_maintain(current_date - g, 0, 400) FROM generate_series(0, 31) g")
    with psycopg.connect(account.stack.database.url(), autocommit=True) as connection, connection.cursor() as cursor:
        cursor.executemany(
            """INSERT INTO attempt_rollups (webhook_id, step, at, delivered, failed, skipped, retried, histogram)
               VALUES (%s, %s, to_timestamp(%s), %s, %s, 0, %s, %s) ON CONFLICT DO NOTHING""",
            rows,
        )
