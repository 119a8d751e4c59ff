"""The proof. Takes the ledger and the plan, knows nothing of the code under test, and names every breach with its delivery."""

import hashlib
import hmac
import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, NamedTuple

from bench.torture.ledger import Fault, Ledger, Lying, Row, Seen, Sent
from bench.torture.plan import DELAYS_S

TERMINAL: Final = ("delivered", "failed", "skipped")
MAX_ATTEMPTS: Final = len(DELAYS_S) + 1
EARLY_S: Final = 0.02  # what rounding to milliseconds and reading two clocks may cost
SKEW_S: Final = 5.0
BEFORE_S: Final = 1.0
RESEND_S: Final = 3.0  # within one attempt's time
AFTER_S: Final = 25.0  # a fault may show for this long: session timeout, rebalance, restart, backlog


@dataclass(frozen=True)
class Target:
    """A webhook as the API created it, and its receiver."""

    id: str
    number: int
    account: str
    events: tuple[str, ...]
    temper: str
    secret: str

    def wants(self, event: str) -> bool:
        return "*" in self.events or event in self.events


class Breach(NamedTuple):
    """Something that must not be."""

    rule: str
    event_id: str
    webhook_id: str
    detail: str


@dataclass
class Verdict:
    """What came out."""

    counts: Counter[str] = field(default_factory=Counter)
    breaches: list[Breach] = field(default_factory=list)
    recovery: dict[str, list[float]] = field(default_factory=dict)

    def breach(self, rule: str, event_id: str, webhook_id: str, detail: str = "") -> None:
        self.breaches.append(Breach(rule, event_id, webhook_id, detail))


class Checker:
    """Indexes the evidence once; each rule is a method of its own."""

    def __init__(self, ledger: Ledger, targets: list[Target]) -> None:
        self.ledger = ledger
        self.targets = {target.id: target for target in targets}
        self._by_number = {target.number: target for target in targets}
        self.by_token = {sent.token: sent for sent in ledger.sent}
        self.events = {sent.event_id: sent for sent in ledger.sent}
        self.seen: dict[tuple[str, str], list[Seen]] = defaultdict(list)  # by event id and webhook id
        self.rows: dict[tuple[str, str], list[Row]] = defaultdict(list)
        self.lying: dict[tuple[str, str], list[Lying]] = defaultdict(list)
        self.verdict = Verdict()

    def judge(self) -> Verdict:
        self._index()
        self._check_log()
        for sent in self.ledger.sent:
            for target in self.targets.values():
                if target.account == sent.account and target.wants(sent.type):
                    self._check_pair(sent, target)
        for pair, seen in self.seen.items():
            self._check_requests(pair, seen)
        for pair, rows in self.rows.items():
            self._check_rows(pair, rows)
        self._check_dead_letters()
        self._measure_recovery()
        return self.verdict

    # --- evidence

    def _index(self) -> None:
        for seen in self.ledger.seen:
            sent = self.by_token.get(_token(seen.body))
            target = self._by_number[seen.hook]
            if sent is None or sent.account != target.account or not target.wants(seen.event):
                self.verdict.breach("a delivery without an event", sent.event_id if sent else "?", target.id, seen.body)
            else:
                self.seen[sent.event_id, target.id].append(seen)
        for row in self.ledger.rows:
            self.rows[row.event_id, row.webhook_id].append(row)
            if row.event_id not in self.events or row.webhook_id not in self.targets:
                self.verdict.breach("a record without an event", row.event_id, row.webhook_id)
        for lying in self.ledger.lying:
            self.lying[lying.event_id, lying.webhook_id].append(lying)
        for group in (self.seen, self.rows):
            for items in group.values():
                items.sort(key=lambda item: item.at if isinstance(item, Seen) else item.attempt)

    def _near(self, first: float, last: float) -> list[Fault]:
        """Faults that may explain what happened between these times."""
        return [f for f in self.ledger.faults if f.began - BEFORE_S <= last and first <= f.ended + AFTER_S]

    # --- rules

    def _check_log(self) -> None:
        for sent in self.ledger.sent:
            if sent.acknowledged is None:
                self.verdict.counts["events not acknowledged"] += 1
                continue
            self.verdict.counts["events acknowledged"] += 1
            if sent.event_id not in self.ledger.in_log:
                self.verdict.breach("an acknowledged event is not in Kafka", sent.event_id, "")

    def _check_pair(self, sent: Sent, target: Target) -> None:
        """Every (acknowledged event, matching webhook) was delivered, or waits, or has a record that says why not."""
        pair = (sent.event_id, target.id)
        rows, counts = self.rows[pair], self.verdict.counts
        if sent.acknowledged is None and not rows and not self.seen[pair]:
            return
        counts["deliveries expected"] += 1
        waiting = any(message.waiting for message in self.lying[pair])
        delivered = any(_is_success(seen.gave) for seen in self.seen[pair])
        last = rows[-1] if rows else None
        if last is not None and last.state in TERMINAL:
            counts[f"ended {last.state}"] += 1
        elif waiting:
            counts["waiting"] += 1
        elif last is not None:
            self.verdict.breach("a record promises an attempt that nobody will make", *pair, last.state)
        elif delivered:
            self.verdict.breach("delivered and not recorded", *pair)
        else:
            self.verdict.breach("lost", *pair, f"in {target.temper} receiver's stead")
        if not delivered and last is not None and last.state == "delivered":
            self.verdict.breach("recorded as delivered, and its receiver gave no success", *pair)

    def _check_requests(self, pair: tuple[str, str], seen: list[Seen]) -> None:
        target = self.targets[pair[1]]
        counts = self.verdict.counts
        counts["requests"] += len(seen)
        if len({request.delivery for request in seen}) > 1:
            self.verdict.breach("one delivery, several ids", *pair)
        by_attempt: dict[int, list[Seen]] = defaultdict(list)
        for request in seen:
            by_attempt[request.attempt].append(request)
            signature = "sha256=" + hmac.new(target.secret.encode(), request.body.encode(), hashlib.sha256).hexdigest()
            if signature != request.signature or request.webhook_id != target.id:
                self.verdict.breach("a wrong signature or webhook id", *pair, request.signature)
        recorded = {row.attempt: row for row in self.rows[pair]}
        for attempt, requests in by_attempt.items():
            if attempt not in recorded and not any(message.waiting for message in self.lying[pair]):
                self.verdict.breach("an attempt was made and not recorded", *pair, f"attempt {attempt}")
            self._check_repeats(pair, requests)
            if attempt > MAX_ATTEMPTS:
                self.verdict.breach("more attempts than the schedule has", *pair, f"attempt {attempt}")
            if attempt > 1 and attempt - 1 in by_attempt:
                early = by_attempt[attempt - 1][0].at + DELAYS_S[attempt - 2] - requests[0].at
                skewed = any(fault.kind == "skewed_guest" for fault in self._near(requests[0].at, requests[0].at))
                if early > (SKEW_S if skewed else EARLY_S):
                    self.verdict.breach("an attempt was early", *pair, f"attempt {attempt} by {early:.3f} s")
        self._check_after_success(pair, seen, recorded)

    def _check_repeats(self, pair: tuple[str, str], requests: list[Seen]) -> None:
        for first, second in pairwise(requests):
            if not _is_answered(first, self._by_number[first.hook]) and second.at - first.at < RESEND_S:
                self.verdict.counts["sent again at once on a new connection"] += (
                    1  # a kept one had been cut: the sender's right
                )
                continue
            self.verdict.counts["duplicate requests"] += 1
            self._explain(pair, f"attempt {first.attempt} twice", first.at, second.at)

    def _check_after_success(self, pair: tuple[str, str], seen: list[Seen], recorded: dict[int, Row]) -> None:
        """After an attempt that is recorded as delivered no other follows."""
        ends = [attempt for attempt, row in recorded.items() if row.state in TERMINAL]
        for request in seen:
            if ends and request.attempt > min(ends):
                end = recorded[min(ends)]
                self.verdict.counts["requests after the end"] += 1
                self._explain(pair, f"attempt {request.attempt} after the end", end.attempted, request.at)

    def _explain(self, pair: tuple[str, str], what: str, first: float, last: float) -> None:
        near = self._near(first, last)
        if not near:
            self.verdict.breach("a duplicate that no fault explains", *pair, what)
        for kind in {fault.kind for fault in near}:
            self.verdict.counts[f"~ duplicates near {kind}"] += 1

    def _check_rows(self, pair: tuple[str, str], rows: list[Row]) -> None:
        """The chain is whole and does not fork; nothing is recorded that was not made or not given."""
        made = [row for row in rows if row.attempt > 0]
        if [row.attempt for row in made] != list(range(1, len(made) + 1)):
            self.verdict.breach("a gap in the chain of attempts", *pair, str([row.attempt for row in made]))
        for row in made[:-1]:
            if row.state != "retrying":
                self.verdict.breach(
                    "a chain that forked", *pair, f"attempt {row.attempt} {row.state}, and others after"
                )
        for row in made:
            self._check_row(pair, row)

    def _check_row(self, pair: tuple[str, str], row: Row) -> None:
        requests = [seen for seen in self.seen[pair] if seen.attempt == row.attempt and seen.delivery == row.delivery]
        if row.state == "skipped":
            if row.error != "webhook_disabled" or pair[1] not in {webhook for webhook, _ in self.ledger.disabled}:
                self.verdict.breach("skipped without a reason", *pair, str(row.error))
            return
        if row.state == "delivered" or row.error == "bad_status":
            if not any(seen.gave == row.status for seen in requests):
                given = [seen.gave for seen in requests]
                self.verdict.breach("recorded what no receiver gave", *pair, f"{row.status}, given {given}")
        elif self.targets[pair[1]].temper == "healthy":
            self.verdict.counts[f"healthy receivers failed: {row.error}"] += 1
            if not self._near(row.attempted, row.attempted + row.duration_ms / 1000):
                self.verdict.breach("a healthy receiver failed, and no fault explains it", *pair, str(row.error))

    def _check_dead_letters(self) -> None:
        failed = {row.delivery: row for row in self.ledger.rows if row.state == "failed"}
        for delivery, row in failed.items():
            if delivery not in self.ledger.dead:
                self.verdict.breach("failed for good and not among the dead letters", row.event_id, row.webhook_id)
        self.verdict.counts["dead letters"] = sum(self.ledger.dead.values())
        self.verdict.counts["dead letters written twice"] = sum(count - 1 for count in self.ledger.dead.values())

    # --- measured

    def _measure_recovery(self) -> None:
        """Per fault: from its end to the last late delivery of what was accepted while it lasted, to healthy receivers."""
        firsts: list[tuple[float, float]] = []
        for (event_id, webhook_id), seen in self.seen.items():
            given = [request.gave_at for request in seen if _is_success(request.gave) and request.gave_at]
            accepted = self.events[event_id].acknowledged
            if self.targets[webhook_id].temper == "healthy" and given and accepted:
                firsts.append((accepted, min(given)))
        late = [(accepted, given) for accepted, given in firsts if given - accepted > 1.0]
        for fault in self.ledger.faults:
            left = [given - fault.ended for accepted, given in late if fault.began - 1 <= accepted <= fault.ended]
            self.verdict.recovery.setdefault(fault.kind, []).append(max([0.0, *left]))


def _is_answered(seen: Seen, target: Target) -> bool:
    """Whether the receiver's answer can have arrived; through a proxy that is cut nobody knows."""
    return seen.gave not in (None, "reset") and target.temper not in ("away", "proxied")


def _is_success(gave: Any) -> bool:
    return isinstance(gave, int) and 200 <= gave < 300


def _token(body: str) -> str:
    data = json.loads(body)["data"]
    token: str = next((data[name] for name in ("qrId", "linkId", "id") if name in data), "?")
    return token
