"""The proof. Takes the ledger, knows nothing of the code under test, and names every breach with its delivery."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, NamedTuple

from bench.torture.causes import Causes, HoldUps, nearest_after, stopped
from bench.torture.delays import early_s
from bench.torture.ledger import Ledger, Lying, Row, Seen, Sent, Target
from bench.torture.plan import DELAYS_S, TIMEOUT_S
from bench.torture.recovery import Quiet, Recovered, measure
from go2hooks.core.domain.event import ABOUT_WEBHOOKS

Pair = tuple[str, str]  # event id, webhook id

TERMINAL: Final = ("delivered", "failed", "skipped")
MAX_ATTEMPTS: Final = len(DELAYS_S) + 1
EARLY_S: Final = 0.02  # what rounding to milliseconds and reading two clocks may cost
SKEW_S: Final = 5.0
SKEW_SHOWS_S: Final = 15.0  # a retry written by a wrong clock is made up to this long after
RESEND_S: Final = TIMEOUT_S  # a kept connection that was cut: sent again within one attempt's time
BRINK_S: Final = 1.0  # an answer given this shortly before its connection was cut may not have arrived
HEARD_S: Final = 3.0  # a change of a webhook is in force within a second; a second more for the driver's own call
LOOSE_S: Final = 10.0  # in short runs, which are judged on a machine of any speed
BLIND_S: Final = 30.0  # with Postgres away, or stopped, nobody hears of changes
DUPLICATES: Final = 0.005  # of all deliveries; in a long run: a short one has more faults for its deliveries

#: What may go wrong at a receiver of this temper, without any fault.
ERRORS: Final = {
    "slow": {"timeout"},
    "resetting": {"connection_error", "invalid_response"},
    "away": {"connection_error", "connection_refused", "timeout", "invalid_response"},
    "proxied": {"connection_error", "connection_refused", "timeout", "invalid_response"},
}


class Breach(NamedTuple):
    """Something that must not be."""

    rule: str
    event_id: str
    webhook_id: str
    detail: str


class Kill(NamedTuple):
    """What the SIGKILL of one dispatcher cost. The under way: requests made and not recorded at that moment."""

    kind: str
    at: float
    under_way: int
    again: int


@dataclass
class Verdict:
    """What came out."""

    counts: Counter[str] = field(default_factory=Counter)
    near: Counter[str] = field(default_factory=Counter)  # duplicates by the kind of fault that explains them
    breaches: list[Breach] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    recovery: list[Recovered] = field(default_factory=list)
    quiet: Quiet = field(default_factory=lambda: Quiet(0, 0, 0.0, 0.0, 0))

    def breach(self, rule: str, event_id: str = "", webhook_id: str = "", detail: str = "") -> None:
        self.breaches.append(Breach(rule, event_id, webhook_id, detail))

    @property
    def duplicates(self) -> float:
        """Requests that were not needed, by deliveries."""
        repeated = self.counts["duplicate requests"] + self.counts["requests after the end"]
        return repeated / max(1, self.counts["deliveries expected"])


class Checker:
    """Indexes the evidence once; each rule is a method of its own.

    With `timed` it judges recovery and the share of duplicates too: what holds on a machine that is not overloaded, in a
    run that is long enough. `loose_s` is added to whatever is said to take a while.
    """

    def __init__(self, ledger: Ledger, targets: list[Target], *, timed: bool, loose_s: float) -> None:
        self.ledger = ledger
        self._timed = timed
        self.targets = {target.id: target for target in targets}
        self._by_number = {target.number: target for target in targets}
        self.events = {sent.event_id: sent for sent in ledger.sent}
        self.seen: dict[Pair, list[Seen]] = defaultdict(list)
        self.rows: dict[Pair, list[Row]] = defaultdict(list)
        self._lying: dict[Pair, list[Lying]] | None = None
        self._waiting: set[Pair] = set()
        self._hold_ups = HoldUps(ledger.held_up, ledger.faults)
        self._causes = Causes(ledger, self._hold_ups, loose_s)
        self._dispatchers = {f"{p.name}/{p.pid}" for p in ledger.processes if not p.name.startswith(("router", "api"))}
        self._went: dict[int, list[float]] = defaultdict(list)  # receiver → when it went away
        self._open: Counter[str] = Counter()  # process that died → its requests that were not recorded then
        self._again: Counter[str] = Counter()  # process → its requests that were sent again
        self._named: dict[str, Pair] = {}  # delivery id → what it names
        self.verdict = Verdict()

    def judge(self) -> Verdict:
        self._index()
        self._check_log()
        of_account: dict[str, list[Target]] = defaultdict(list)
        for target in self.targets.values():
            of_account[target.account].append(target)
        for sent in self.ledger.sent:
            for target in of_account[sent.account]:
                if target.wants(sent.type):
                    self._check_pair(sent, target)
        for pair, seen in self.seen.items():
            self._check_requests(pair, seen)
        for pair, rows in self.rows.items():
            self._check_rows(pair, rows)
        self._check_dead_letters()
        self._check_processes()
        self._measure_kills()
        self._measure_recovery()
        if self._timed:
            self._check_timing()
        return self.verdict

    @property
    def held_up(self) -> int:
        """How often the machine did not let a process of ours run for half a second or more."""
        return len(self._hold_ups)

    def lying(self, pair: Pair) -> list[Lying]:
        """Its messages in Kafka. The index of them is made when somebody asks: mostly nobody does."""
        if self._lying is None:
            self._lying = defaultdict(list)
            for message in self.ledger.lying:
                self._lying[message.event_id, message.webhook_id].append(message)
        return self._lying.get(pair, [])

    # --- evidence

    def _index(self) -> None:
        by_token = {sent.token: sent for sent in self.ledger.sent}
        for seen in self.ledger.seen:
            if seen.event in ABOUT_WEBHOOKS:  # of the dispatchers' own making; judged by nobody here
                continue
            sent = by_token.get(seen.token)
            target = self._by_number[seen.hook]
            if sent is None or (sent.account, sent.type) != (target.account, seen.event) or not target.wants(sent.type):
                self.verdict.breach(
                    "a delivery without an event", sent.event_id if sent else "?", target.id, seen.token
                )
            else:
                self.seen[sent.event_id, target.id].append(seen)
        for row in self.ledger.rows:
            if row.event_id not in self.events or row.webhook_id not in self.targets:
                self.verdict.breach("a record without an event", row.event_id, row.webhook_id)
            else:
                self.rows[row.event_id, row.webhook_id].append(row)
        self._waiting = {(lying.event_id, lying.webhook_id) for lying in self.ledger.lying if lying.waiting}
        for number, at in self.ledger.absences:
            self._went[number].append(at)
        for requests in self.seen.values():
            requests.sort(key=lambda request: request.at)
        for rows in self.rows.values():
            rows.sort(key=lambda row: row.attempt)

    # --- rules

    def _check_log(self) -> None:
        for sent in self.ledger.sent:
            there = self.ledger.in_log.get(sent.event_id, 0)
            self.verdict.counts["events written twice by their producer"] += max(0, there - 1)
            if sent.acknowledged is None:
                self.verdict.counts["events not acknowledged"] += 1
                continue
            self.verdict.counts["events acknowledged"] += 1
            if not there:
                self.verdict.breach("an acknowledged event is not in Kafka", sent.event_id)

    def _check_pair(self, sent: Sent, target: Target) -> None:
        """Every (event in Kafka, matching webhook) was delivered, or waits, or has a record that says why not."""
        pair = (sent.event_id, target.id)
        rows, seen, counts = self.rows.get(pair, []), self.seen.get(pair, []), self.verdict.counts
        if sent.acknowledged is None and sent.event_id not in self.ledger.in_log and not rows and not seen:
            return
        counts["deliveries expected"] += 1
        delivered = any(_is_success(request.gave) for request in seen)
        last = rows[-1] if rows else None
        if last is not None and last.state in TERMINAL:
            counts[f"ended {last.state}"] += 1
        elif pair in self._waiting:
            counts["waiting"] += 1
        elif last is not None:
            self.verdict.breach("a record promises an attempt that nobody will make", *pair, last.state)
        elif delivered:
            self.verdict.breach("delivered and not recorded", *pair)
        else:
            self.verdict.breach("lost", *pair, f"on the way to a receiver that is {target.temper}")
        if not delivered and last is not None and last.state == "delivered":
            self.verdict.breach("recorded as delivered, and its receiver gave no success", *pair)

    def _check_requests(self, pair: Pair, seen: list[Seen]) -> None:
        self.verdict.counts["requests"] += len(seen)
        if len({request.delivery for request in seen}) > 1:
            self.verdict.breach("one delivery, several ids", *pair)
        recorded = {row.attempt: row for row in self.rows.get(pair, ())}
        by_attempt: dict[int, list[Seen]] = defaultdict(list)
        for request in seen:
            if self._named.setdefault(request.delivery, pair) != pair:
                self.verdict.breach("one id, several deliveries", *pair, request.delivery)
            by_attempt[request.attempt].append(request)
            if not self._was_recorded(request, recorded.get(request.attempt)):
                self._open[request.process] += 1
            if not request.genuine:
                self.verdict.breach("a wrong signature, webhook id or event name", *pair, f"attempt {request.attempt}")
        for attempt, requests in by_attempt.items():
            if attempt not in recorded and pair not in self._waiting:
                self.verdict.breach("an attempt was made and not recorded", *pair, f"attempt {attempt}")
            self._check_repeats(pair, requests, recorded.get(attempt))
            if attempt > MAX_ATTEMPTS:
                self.verdict.breach("more attempts than the schedule has", *pair, f"attempt {attempt}")
            if attempt - 1 in by_attempt:
                self._check_delay(pair, by_attempt[attempt - 1], recorded.get(attempt - 1), requests[0])
        self._check_after_success(pair, seen, recorded)

    def _check_delay(self, pair: Pair, before: list[Seen], row: Row | None, request: Seen) -> None:
        """Counted from the failure before it; by a clock that is 5 s wrong, so much too early."""
        early = early_s(before, row, request)
        if early <= EARLY_S:
            return
        skewed = any(
            fault.kind == "skew_dispatcher" and fault.began <= request.at <= fault.ended + SKEW_SHOWS_S
            for fault in self.ledger.faults
        )
        if not skewed or early > SKEW_S:
            self.verdict.breach("an attempt was early", *pair, f"attempt {request.attempt} by {early:.3f} s")

    def _check_repeats(self, pair: Pair, requests: list[Seen], row: Row | None) -> None:
        resent = False
        for first, second in pairwise(requests):
            resend_s = RESEND_S + self._causes.slack_s(second.at)
            same = first.process == second.process and second.at - first.at <= resend_s
            resent = same and not resent and not self._surely_answered(first, second.at)
            if resent:
                self.verdict.counts["sent again at once on a new connection"] += 1  # the sender's right, once
                continue
            self.verdict.counts["duplicate requests"] += 1
            self.verdict.counts["of the duplicates, made by one process"] += first.process == second.process
            if not self._was_recorded(first, row):
                self._again[first.process] += 1
            self._explain(pair, f"attempt {first.attempt} twice", first, second, row)

    def _check_after_success(self, pair: Pair, seen: list[Seen], recorded: dict[int, Row]) -> None:
        """After an attempt that is recorded as the last no other follows."""
        end = next((row for attempt, row in sorted(recorded.items()) if row.state in TERMINAL), None)
        for request in seen:
            if end is not None and request.attempt > end.attempt:
                self.verdict.counts["requests after the end"] += 1
                last = [other for other in seen if other.attempt == end.attempt] or [request]
                self._explain(pair, f"attempt {request.attempt} after the end", last[-1], request, end)

    def _explain(self, pair: Pair, what: str, first: Seen, second: Seen, row: Row | None) -> None:
        causes = self._causes.of(first, second, row.recorded if row else None)
        unseen = self._causes.unseen(second, row.recorded if row else None)
        if not causes and unseen and first.process != second.process:  # one process knows what it has under way
            written = [message.written for message in self.lying(pair) if message.attempt == second.attempt]
            causes = self._causes.of_copies(sorted(written), second)
            self.verdict.counts["of the duplicates, copies of what was moved aside"] += bool(causes)
        self.verdict.near.update(causes)
        if not causes:
            between = f"{first.process} and {second.process}, {second.at - first.at:.2f} s apart"
            self.verdict.breach("a duplicate that no fault explains", *pair, f"{what}: {between}")

    def _check_rows(self, pair: Pair, rows: list[Row]) -> None:
        """The chain is whole and does not fork; nothing is recorded that was not made or not given."""
        made = [row for row in rows if row.attempt > 0]
        if [row.attempt for row in made] != list(range(1, len(made) + 1)):
            self.verdict.breach("a gap in the chain of attempts", *pair, str([row.attempt for row in made]))
        for row in made[:-1]:
            if row.state != "retrying":
                self.verdict.breach("a chain that forked", *pair, f"attempt {row.attempt} {row.state}, others after")
        if len(made) > MAX_ATTEMPTS:
            self.verdict.breach("more attempts than the schedule has", *pair, f"{len(made)} recorded")
        for row in made:
            if row.state == "failed" and row.attempt < MAX_ATTEMPTS:
                self.verdict.breach("given up before the last attempt", *pair, f"attempt {row.attempt}")
            if row.state == "skipped":
                self._check_skip(pair, row)
            else:
                self._check_row(pair, row)

    def _check_skip(self, pair: Pair, row: Row) -> None:
        """Skipped only while the webhook was disabled, or as long after as the news takes."""
        known_s = HEARD_S + self._causes.slack_s(row.attempted)
        if self._skewed(row) or stopped(self.ledger.faults, row.attempted - BLIND_S, row.attempted, 0.0):
            known_s += SKEW_S + BLIND_S
        if any(o.began <= row.attempted <= (o.back or o.ended) + BLIND_S for o in self._causes.outages):
            known_s += BLIND_S
        spells = (spell for spell in self.ledger.disabled if spell.webhook_id == pair[1])
        if row.error != "webhook_disabled" or not any(
            spell.began - known_s <= row.attempted <= spell.ended + known_s for spell in spells
        ):
            self.verdict.breach("skipped without a reason", *pair, str(row.error))

    def _check_row(self, pair: Pair, row: Row) -> None:
        target = self.targets[pair[1]]
        if (row.state == "delivered") != _is_success(row.status):
            self.verdict.breach("an answer was taken for its opposite", *pair, f"{row.state} by a {row.status}")
        if row.state == "delivered" or row.error == "bad_status":
            requests = [r for r in self.seen.get(pair, ()) if r.attempt == row.attempt and r.delivery == row.delivery]
            if not any(request.gave == row.status for request in requests):
                given = [request.gave for request in requests]
                self.verdict.breach("recorded what no receiver gave", *pair, f"{row.status}, given {given}")
        elif row.error not in ERRORS.get(target.temper, ()):
            self._check_failure(pair, row)

    def _check_failure(self, pair: Pair, row: Row) -> None:
        """One at a healthy receiver: its process was stopped, or the machine held it up, or the receivers."""
        margin_s = 1.0 + (SKEW_S if self._skewed(row) else 0.0)
        first, last = row.attempted, row.attempted + row.duration_ms / 1000
        makers = {r.process for r in self.seen.get(pair, ()) if r.attempt == row.attempt} or self._dispatchers
        if stopped(self.ledger.faults, first, last, margin_s):
            self.verdict.counts[f"failed with {row.error} while their process was stopped"] += 1
        elif self._hold_ups.hit(makers, first - margin_s, last + margin_s):
            self.verdict.counts[f"failed with {row.error} while the machine held their process up"] += 1
        else:
            self.verdict.breach("failed, and neither its receiver nor a fault explains it", *pair, str(row.error))

    def _skewed(self, row: Row) -> bool:
        """Whether the clock that dated it may have been wrong."""
        return any(
            fault.kind == "skew_dispatcher" and fault.began - SKEW_S <= row.attempted <= fault.ended + SKEW_S
            for fault in self.ledger.faults
        )

    def _check_dead_letters(self) -> None:
        failed = {row.delivery: row for row in self.ledger.rows if row.state == "failed"}
        for delivery, row in failed.items():
            if delivery not in self.ledger.dead:
                self.verdict.breach("failed for good and not among the dead letters", row.event_id, row.webhook_id)
        self.verdict.counts["dead letters"] = sum(self.ledger.dead.values())
        self.verdict.counts["dead letters written twice"] = sum(count - 1 for count in self.ledger.dead.values())
        self.verdict.counts["dead letters of what did not fail in the end"] = len(self.ledger.dead.keys() - failed)

    def _check_processes(self) -> None:
        """Services end when they are killed, and when what they stand on is away: by themselves, and by no crash."""
        for process in self.ledger.processes:
            _died, kind = self._causes.deaths.get(f"{process.name}/{process.pid}", (0.0, ""))
            if kind.startswith("ended by itself") and process.ended is not None:
                self.verdict.counts[f"{process.name.partition('-')[0]} {kind}"] += 1
                outages = self._causes.outages
                crashed = process.status is not None and process.status < 0
                if crashed or not any(o.began <= process.ended <= (o.back or o.ended) + 2 * BLIND_S for o in outages):
                    self.verdict.breach("a service ended by itself, and no fault explains it", detail=f"{process}")

    # --- measured

    def _measure_kills(self) -> None:
        """What SIGKILL costs: requests made and not yet recorded when it struck, and how many were sent again."""
        for process, (died, kind) in self._causes.deaths.items():
            if process.startswith(("dispatcher", "guest")) and not kind.startswith("ended by itself"):
                self.verdict.kills.append(Kill(kind, died, self._open[process], self._again[process]))

    def _was_recorded(self, request: Seen, row: Row | None) -> bool:
        """Whether it was so when the process that made it died; True also for one that lives."""
        died, _kind = self._causes.deaths.get(request.process, (0.0, ""))
        return not died or (row is not None and row.recorded is not None and row.recorded <= died)

    def _check_timing(self) -> None:
        for recovered in self.verdict.recovery:
            if recovered.seconds is not None and recovered.seconds > recovered.limit_s:
                detail = f"{recovered.kind} at {recovered.ended:.1f}: {recovered.seconds:.0f} s"
                self.verdict.breach("recovery took too long", detail=detail)
        if self.verdict.duplicates > DUPLICATES:
            self.verdict.breach(
                "too many duplicates", detail=f"{self.verdict.duplicates:.3%}, {DUPLICATES:.1%} allowed"
            )

    def _measure_recovery(self) -> None:
        pairs: list[tuple[float, float]] = []
        for (event_id, webhook_id), seen in self.seen.items():
            if self.targets[webhook_id].temper == "healthy" and event_id in self.events:
                given = [request.gave_at for request in seen if _is_success(request.gave) and request.gave_at]
                if given:
                    produced = self.events[event_id].produced
                    pairs.append((produced, min(given) - produced))
        self.verdict.recovery, self.verdict.quiet = measure(pairs, self.ledger.faults, self.ledger.others)

    def _surely_answered(self, seen: Seen, until: float) -> bool:
        """Whether the receiver's answer must have arrived; one given as the connection was cut may not have."""
        if seen.gave in (None, "reset"):
            return False
        gave_at = seen.gave_at or seen.at
        brink_s = BRINK_S + self._causes.slack_s(until)
        if nearest_after(self._went[seen.hook], seen.at) <= gave_at + brink_s:
            return False
        return self._by_number[seen.hook].temper != "proxied" or not any(
            fault.kind == "cut_receivers" and fault.began <= until and gave_at <= fault.ended + brink_s
            for fault in self.ledger.faults
        )


def _is_success(gave: Any) -> bool:
    return isinstance(gave, int) and 200 <= gave < 300
