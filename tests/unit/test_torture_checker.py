"""The torture's checker finds what it is there to find: each breach in evidence that is otherwise sound."""

import hashlib
import hmac
import json
from collections.abc import Callable

import pytest

from bench.torture.checker import Checker, Target
from bench.torture.ledger import Fault, Ledger, Lying, Row, Seen, Sent

SECRET = "whsec_secret"
TARGET = Target("wh_1", 1, "acc", ("click",), "healthy", SECRET)
BODY = json.dumps({"event": "click", "timestamp": "2024-01-01T12:00:00Z", "data": {"linkId": "tok1"}})


def seen(at: float, attempt: int, gave: int | str | None, body: str = BODY) -> Seen:
    signature = "sha256=" + hmac.new(SECRET.encode(), body.encode(), hashlib.sha256).hexdigest()
    return Seen(at, 1, "dlv_1", attempt, "wh_1", "click", body, signature, gave, at + 0.01)


def row(at: float, attempt: int, state: str, status: int | None = 200, error: str | None = None) -> Row:
    return Row("wh_1", "dlv_1", attempt, "evt_1", state, status, error, 100.0, at, None, 10.0)


@pytest.fixture
def ledger() -> Ledger:
    """One event, which failed once and was delivered then."""
    return Ledger(
        sent=[Sent("tok1", "evt_1", "acc", "click", 100.0, 100.01)],
        seen=[seen(100.02, 1, 500), seen(101.03, 2, 200)],
        rows=[row(100.02, 1, "retrying", 500, "bad_status"), row(101.03, 2, "delivered")],
        faults=[Fault("kill_router", "router-0", 99.0, 99.5)],
        in_log={"evt_1": 1},
    )


def breached(ledger: Ledger) -> set[str]:
    return {breach.rule for breach in Checker(ledger, [TARGET]).judge().breaches}


def waiting() -> Lying:
    return Lying("go2.deliveries", 0, 7, 100.0, "wh_1", "dlv_1", "evt_1", 1, 0.0, waiting=True, suspect=False)


def test_sound_evidence_passes(ledger):
    assert breached(ledger) == set()


def test_what_waits_is_not_lost(ledger):
    ledger.seen, ledger.rows, ledger.lying = [], [], [waiting()]
    assert breached(ledger) == set()


def lose(ledger: Ledger) -> None:
    ledger.seen, ledger.rows = [], []


def lose_from_kafka(ledger: Ledger) -> None:
    ledger.in_log = {}


def forget_the_record(ledger: Ledger) -> None:
    ledger.rows = []


def forget_the_last_record(ledger: Ledger) -> None:
    ledger.rows.pop()


def record_what_was_not_made(ledger: Ledger) -> None:
    ledger.seen.pop()


def record_a_success_that_was_a_failure(ledger: Ledger) -> None:
    ledger.seen[1].gave = 500


def hurry(ledger: Ledger) -> None:
    ledger.seen[1].at -= 0.5


def fork(ledger: Ledger) -> None:
    ledger.rows[0] = row(100.02, 1, "delivered")
    ledger.seen[0].gave = 200


def leave_a_gap(ledger: Ledger) -> None:
    ledger.rows[1] = row(101.03, 3, "delivered")
    ledger.seen[1].attempt = 3


def repeat_without_a_fault(ledger: Ledger) -> None:
    ledger.faults = []
    ledger.seen.append(seen(101.5, 2, 200))


def invent_an_event(ledger: Ledger) -> None:
    ledger.seen.append(seen(102.0, 1, 200, BODY.replace("tok1", "tok2")))


def sign_wrongly(ledger: Ledger) -> None:
    ledger.seen[1].signature = "sha256=0"


def skip_an_active_webhook(ledger: Ledger) -> None:
    ledger.rows[1] = row(101.03, 2, "skipped", None, "webhook_disabled")
    ledger.seen.pop()


def fail_for_good_without_a_dead_letter(ledger: Ledger) -> None:
    ledger.rows[1] = row(101.03, 2, "failed", 500, "bad_status")
    ledger.seen[1].gave = 500


@pytest.mark.parametrize(
    ("spoil", "rule"),
    [
        (lose, "lost"),
        (lose_from_kafka, "an acknowledged event is not in Kafka"),
        (forget_the_record, "delivered and not recorded"),
        (forget_the_last_record, "a record promises an attempt that nobody will make"),
        (record_what_was_not_made, "recorded what no receiver gave"),
        (record_a_success_that_was_a_failure, "recorded as delivered, and its receiver gave no success"),
        (hurry, "an attempt was early"),
        (fork, "a chain that forked"),
        (leave_a_gap, "a gap in the chain of attempts"),
        (repeat_without_a_fault, "a duplicate that no fault explains"),
        (invent_an_event, "a delivery without an event"),
        (sign_wrongly, "a wrong signature or webhook id"),
        (skip_an_active_webhook, "skipped without a reason"),
        (fail_for_good_without_a_dead_letter, "failed for good and not among the dead letters"),
    ],
)
def test_it_finds(ledger: Ledger, spoil: Callable[[Ledger], None], rule: str):
    spoil(ledger)
    assert rule in breached(ledger)
