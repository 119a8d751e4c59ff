"""The expected and the received requests. Each request is checked when it arrives."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Lock
from typing import Final

from go2hooks.core.domain.delivery import delivery_id
from go2hooks.core.domain.event import ABOUT_WEBHOOKS, Event
from go2hooks.core.encoding.payload import render
from go2hooks.demo.plan import Subscription, failures_due
from go2hooks.listening.receiver import Received

_CLOCK_TOLERANCE_S: Final = 60
_PROBLEMS_KEPT: Final = 50


@dataclass(slots=True)
class Expected:
    """One delivery: its expected content, and the attempts that have arrived, in order."""

    event: str
    timestamp: str
    body: bytes
    failures_due: int | None  #: attempts that the receiver fails; None: all of them
    sent_ns: int
    attempts: list[int] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether the attempt that succeeds has arrived."""
        return self.failures_due is not None and len(self.attempts) > self.failures_due


@dataclass(slots=True)
class Account:
    """One webhook's side of the ledger."""

    subscription: Subscription
    webhook_id: str
    secret: str
    expected: dict[str, Expected] = field(default_factory=dict)  #: by delivery id
    told: dict[str, str] = field(
        default_factory=dict
    )  #: events about webhooks, which no producer sent: event types by delivery id
    requests: int = 0
    retries: int = 0  #: requests with an attempt number above 1
    delivered: int = 0  #: answered with 200
    latencies_ms: list[float] = field(default_factory=list)  #: of first attempts, produce to arrival


class Ledger:
    """The producer's thread and the receiver's threads write it; the screen's thread reads it."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self._lock = Lock()
        self._problems: list[str] = []
        self.sent = 0

    def open(self, path: str, account: Account) -> None:
        """Requests to `path` are this webhook's."""
        self._accounts[path] = account

    @property
    def accounts(self) -> list[Account]:
        return list(self._accounts.values())

    @property
    def problems(self) -> list[str]:
        """The problems of requests."""
        return list(self._problems)

    def complain(self, problem: str) -> None:
        if len(self._problems) < _PROBLEMS_KEPT:
            self._problems.append(problem)

    def expect(self, event: Event, number: int, count: int) -> None:
        """Add an event that is about to be sent, number `number` of `count`."""
        rendered = render(event)
        with self._lock:
            self.sent += 1
            for account in self._accounts.values():
                if account.subscription.wants(event.type):
                    due = failures_due(account.subscription, number, count)
                    entry = Expected(event.type, rendered.timestamp, rendered.body, due, time.time_ns())
                    account.expected[delivery_id(event.id, account.webhook_id)] = entry

    def take(self, received: Received) -> int:
        """Add one request. Returns the status to answer with."""
        arrived_ns = time.time_ns()
        account = self._accounts.get(received.path)
        if account is None:
            self.complain(f"a request came to {received.path}, where no webhook is")
            return 404
        entry = account.expected.get(received.headers.get("x-webhook-delivery", ""))
        if entry is None and self._is_told(received, account):
            return 200
        if entry is None:
            self.complain(f"{account.subscription.name}: a delivery came that nobody expected")
            return 200
        for fault in _faults(received, account, entry, arrived_ns):
            self.complain(f"{account.subscription.name}: {fault}")
        with self._lock:
            return _enter(received, account, entry, arrived_ns)

    def _is_told(self, received: Received, account: Account) -> bool:
        """Whether the request is an event about a webhook, which dispatchers produce; if so, it is stored."""
        event = received.headers.get("x-webhook-event", "")
        if event not in ABOUT_WEBHOOKS or not account.subscription.wants(event):
            return False
        for header, right in received.verify([account.secret]).items():
            if not right:
                self.complain(f"{account.subscription.name}: {header} of {event} does not verify")
        account.told[received.headers["x-webhook-delivery"]] = event
        return True


def _enter(received: Received, account: Account, entry: Expected, arrived_ns: int) -> int:
    attempt = int(received.headers["x-webhook-attempt"])
    entry.attempts.append(attempt)
    account.requests += 1
    if attempt > 1:
        account.retries += 1
    else:
        account.latencies_ms.append((arrived_ns - entry.sent_ns) / 1e6)
    if entry.failures_due is None:
        return 500
    if attempt <= entry.failures_due:
        return 503
    account.delivered += 1
    return 200


def _faults(received: Received, account: Account, entry: Expected, now_ns: int) -> Iterator[str]:
    """The problems of this request by itself."""
    for header, right in received.verify([account.secret]).items():
        if not right:
            yield f"{header} does not verify"
    delivery = received.headers["x-webhook-delivery"]
    due = {
        "content-type": "application/json",
        "x-webhook-id": account.webhook_id,
        "x-webhook-event": entry.event,
        "x-webhook-timestamp": entry.timestamp,
        "webhook-id": delivery,
    }
    for header, value in due.items():
        if received.headers.get(header) != value:
            yield f"{header} of {delivery} is {received.headers.get(header)!r}, not {value!r}"
    if received.body != entry.body:
        yield f"the body of {delivery} is not the event that was sent"
    if abs(now_ns // 1_000_000_000 - int(received.headers.get("webhook-timestamp", 0))) > _CLOCK_TOLERANCE_S:
        yield f"webhook-timestamp of {delivery} is not the time of the attempt"


def percentile(ascending: list[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed; 0 without values."""
    return ascending[min(len(ascending) - 1, int(len(ascending) * share))] if ascending else 0.0
