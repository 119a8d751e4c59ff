"""The torture's checker finds what it is there to find: each breach in evidence that is otherwise sound."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from bench.torture import checker
from bench.torture.checker import Checker, Verdict
from bench.torture.ledger import (
    Fault,
    HeldUp,
    Ledger,
    Lying,
    Process,
    Row,
    Seen,
    Sent,
    Spell,
    Target,
    is_genuine,
    is_standard,
    token_of,
)
from bench.torture.recovery import Quiet, Recovered

TARGET = Target("wh_1", 1, "acc", ("click", "qr.scanned"), "healthy", "whsec_secret")
BODY = json.dumps({"event": "click", "timestamp": "2024-01-01T12:00:00Z", "data": {"linkId": "tok1"}})
KILL = Fault("kill_dispatcher", "a", 101.1, 101.1, pid=1)
KILLED = Process("a", 1, 90.0, 101.15, -9)


def seen(at: float, attempt: int, gave: int | str | None, process: str = "a/1") -> Seen:
    return Seen(at, 1, "dlv_1", attempt, "click", process, "tok1", genuine=True, gave=gave, gave_at=at + 0.01)


def row(at: float, attempt: int, state: str, status: int | None = 200, error: str | None = None) -> Row:
    return Row("wh_1", "dlv_1", attempt, "evt_1", state, status, error, at, 10.0, at + 0.05)


@pytest.fixture
def ledger() -> Ledger:
    """One event, which failed once and was delivered then, while a router was killed."""
    return Ledger(
        sent=[Sent("tok1", "evt_1", "acc", "click", 100.0, 100.01)],
        seen=[seen(100.02, 1, 500), seen(101.03, 2, 200)],
        rows=[row(100.02, 1, "retrying", 500, "bad_status"), row(101.03, 2, "delivered")],
        faults=[Fault("kill_router", "router-0", 99.0, 99.5, pid=9)],
        in_log={"evt_1": 1},
    )


def judge(ledger: Ledger, temper: str = "healthy", *, timed: bool = False, loose_s: float = 0.0) -> Verdict:
    target = TARGET.__class__(**vars(TARGET) | {"temper": temper})
    return Checker(ledger, [target], timed=timed, loose_s=loose_s).judge()


def breached(ledger: Ledger, temper: str = "healthy") -> set[str]:
    return {breach.rule for breach in judge(ledger, temper).breaches}


def waiting() -> Lying:
    return Lying("go2.deliveries", 0, 7, 100.0, "wh_1", "evt_1", 1, 0.0, waiting=True, suspect=False)


def test_sound_evidence_passes(ledger):
    assert breached(ledger) == set()


def test_what_waits_is_not_lost(ledger):
    ledger.seen, ledger.rows, ledger.lying = [], [], [waiting()]
    assert breached(ledger) == set()


def test_what_kafka_has_counts_though_its_producer_never_heard(ledger):
    ledger.sent[0] = ledger.sent[0]._replace(acknowledged=None)
    ledger.seen, ledger.rows = [], []
    assert breached(ledger) == {"lost"}
    ledger.in_log = {}
    assert breached(ledger) == set()


def test_a_request_is_genuine_when_its_signature_and_its_webhook_are_right():
    signature = "sha256=" + hmac.new(b"whsec_secret", BODY.encode(), hashlib.sha256).hexdigest()
    assert token_of(BODY) == "tok1"
    assert is_genuine(TARGET, "wh_1", BODY, signature)
    assert not is_genuine(TARGET, "wh_2", BODY, signature)
    assert not is_genuine(TARGET, "wh_1", BODY + " ", signature)


def test_a_request_is_standard_when_a_standard_webhooks_library_would_take_it():
    secret = "whsec_" + base64.b64encode(b"0123456789abcdef").decode()
    target = replace(TARGET, secret=secret)

    def headers(message_id: str = "dlv_1", timestamp: str = "100") -> list[str]:
        signed = f"{message_id}.{timestamp}.{BODY}".encode()
        digest = hmac.new(b"0123456789abcdef", signed, hashlib.sha256).digest()
        return [message_id, timestamp, "v1," + base64.b64encode(digest).decode()]

    assert is_standard(target, "dlv_1", 100.5, BODY, headers())
    assert not is_standard(target, "dlv_1", 100.5, BODY + " ", headers())
    assert not is_standard(target, "dlv_1", 100.5, BODY, headers(message_id="dlv_2"))
    assert not is_standard(target, "dlv_1", 500.0, BODY, headers())
    assert not is_standard(target, "dlv_1", 100.5, BODY, [*headers()[:2], "v1,AAAA"])


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


def repeat(ledger: Ledger) -> None:
    """Near a router's death, which explains nothing."""
    ledger.seen.append(seen(101.5, 2, 200))


def repeat_what_was_recorded_before_its_process_was_killed(ledger: Ledger) -> None:
    ledger.faults.append(KILL._replace(began=101.3, ended=101.3))
    ledger.processes.append(KILLED)
    ledger.seen.append(seen(107.0, 2, 200, "b/2"))


def go_on_after_the_end(ledger: Ledger) -> None:
    ledger.seen.append(seen(103.0, 3, 200))


def invent_an_event(ledger: Ledger) -> None:
    ledger.seen.append(seen(102.0, 1, 200))
    ledger.seen[-1].token = "tok2"


def record_another_webhooks(ledger: Ledger) -> None:
    ledger.rows.append(row(102.0, 1, "delivered")._replace(webhook_id="wh_2"))


def record_another_events(ledger: Ledger) -> None:
    ledger.rows.append(row(102.0, 1, "delivered")._replace(event_id="evt_2"))


def call_it_another_event(ledger: Ledger) -> None:
    ledger.seen[1].event = "qr.scanned"


def sign_wrongly(ledger: Ledger) -> None:
    ledger.seen[1].genuine = False


def skip_an_active_webhook(ledger: Ledger) -> None:
    """It was disabled, but not then."""
    ledger.rows[1] = row(101.03, 2, "skipped", None, "webhook_disabled")
    ledger.seen.pop()
    ledger.disabled.append(Spell("wh_1", 110.0, 120.0))


def fail_for_good_without_a_dead_letter(ledger: Ledger) -> None:
    ledger.rows[1] = row(101.03, 2, "failed", 500, "bad_status")
    ledger.seen[1].gave = 500


def name_another_alike(ledger: Ledger) -> None:
    """Its receiver would take it for a repetition, and drop it."""
    ledger.sent.append(Sent("tok2", "evt_2", "acc", "click", 100.0, 100.01))
    ledger.in_log["evt_2"] = 1
    ledger.seen.append(seen(100.03, 1, 200))
    ledger.seen[-1].token = "tok2"
    ledger.rows.append(row(100.03, 1, "delivered")._replace(event_id="evt_2"))


def give_up_early(ledger: Ledger) -> None:
    fail_for_good_without_a_dead_letter(ledger)
    ledger.dead["dlv_1"] = 1


def go_on_beyond_the_schedule(ledger: Ledger) -> None:
    """With attempts that no receiver saw."""
    refused = [row(100 + 10.0 * n, n, "retrying", None, "connection_refused") for n in range(2, 7)]
    ledger.rows[1:] = [*refused, row(170.0, 7, "delivered")]
    ledger.seen.pop()


def take_a_success_for_a_failure(ledger: Ledger) -> None:
    ledger.rows[0] = row(100.02, 1, "retrying", 200, "bad_status")
    ledger.seen[0].gave = 200


def time_out_at_a_receiver_that_is_quick(ledger: Ledger) -> None:
    ledger.rows[0] = row(100.02, 1, "retrying", None, "timeout")


def end_by_itself(ledger: Ledger) -> None:
    ledger.processes.append(Process("router-1", 5, 90.0, 120.0, 1))


def end_by_itself_in_good_order(ledger: Ledger) -> None:
    ledger.processes.append(Process("router-1", 5, 90.0, 120.0, 0))


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
        (repeat, "a duplicate that no fault explains"),
        (repeat_what_was_recorded_before_its_process_was_killed, "a duplicate that no fault explains"),
        (go_on_after_the_end, "a duplicate that no fault explains"),
        (invent_an_event, "a delivery without an event"),
        (record_another_webhooks, "a record without an event"),
        (record_another_events, "a record without an event"),
        (call_it_another_event, "a delivery without an event"),
        (sign_wrongly, "a wrong signature, webhook id or event name"),
        (skip_an_active_webhook, "skipped without a reason"),
        (fail_for_good_without_a_dead_letter, "failed for good and not among the dead letters"),
        (name_another_alike, "one id, several deliveries"),
        (give_up_early, "given up before the last attempt"),
        (go_on_beyond_the_schedule, "more attempts than the schedule has"),
        (take_a_success_for_a_failure, "an answer was taken for its opposite"),
        (time_out_at_a_receiver_that_is_quick, "failed, and neither its receiver nor a fault explains it"),
        (end_by_itself, "a service ended by itself, and no fault explains it"),
        (end_by_itself_in_good_order, "a service ended by itself, and no fault explains it"),
    ],
)
def test_it_finds(ledger: Ledger, spoil: Callable[[Ledger], None], rule: str):
    spoil(ledger)
    assert rule in breached(ledger)


@pytest.mark.parametrize(
    ("fault", "second"),
    [
        (KILL._replace(began=101.05, ended=101.05), seen(107.0, 2, 200, "b/2")),
        (Fault("stop_dispatcher", "b", 95.0, 106.0, pid=2), seen(107.0, 2, 200, "b/2")),
        (Fault("kill_postgres", "database", 100.0, 104.0), seen(107.0, 2, 200, "b/2")),
    ],
)
def test_a_duplicate_is_explained_by_what_hit_its_processes(ledger, fault, second):
    ledger.seen.append(second)
    ledger.faults.append(fault)
    ledger.processes += [KILLED] if fault.pid == KILLED.pid else []
    verdict = judge(ledger)
    assert verdict.breaches == []
    assert (verdict.counts["duplicate requests"], verdict.near) == (1, {fault.kind: 1})


@pytest.mark.parametrize(("took_s", "explained"), [(0.5, False), (6.0, True)])
def test_a_broker_that_answered_nobody_for_seconds_explains_a_duplicate_though_no_fault_was_planned(
    ledger, took_s, explained
):
    """The machine held it up, sessions timed out, and partitions moved."""
    ledger.seen.append(seen(107.0, 2, 200, "b/2"))
    ledger.sent.append(Sent("tok2", "evt_2", "another", "click", 100.0, 100.0 + took_s))
    ledger.in_log["evt_2"] = 1
    verdict = judge(ledger)
    assert (not verdict.breaches) == explained
    assert verdict.near == ({"held_up_broker": 1} if explained else {})
    ledger.seen[-1].process = "a/1"  # to which no partition moved
    assert breached(ledger) == {"a duplicate that no fault explains"}


@pytest.mark.parametrize(
    "fault",
    [
        KILL._replace(began=105.0, ended=105.0, target="c", pid=3),  # another process
        Fault("stop_dispatcher", "b", 80.0, 90.0, pid=2),  # over long before
        Fault("cut_receivers", "to receivers", 100.0, 104.0),
    ],
)
def test_a_fault_that_hit_something_else_explains_no_duplicate(ledger, fault):
    ledger.seen.append(seen(107.0, 2, 200, "b/2"))
    ledger.faults.append(fault)
    assert breached(ledger) == {"a duplicate that no fault explains"}


@pytest.mark.parametrize(
    ("fault", "at", "process"),
    [
        (Fault("kill_broker", "broker", 105.0, 107.0, back=110.0), 112.0, "b/2"),  # recorded before it was away
        (Fault("cut_broker", "to broker", 100.5, 104.0), 115.0, "b/2"),  # long after all have heard
        (Fault("cut_broker", "to broker", 100.5, 104.0), 108.0, "a/1"),  # which made the first itself
        (Fault("kill_postgres", "database", 105.0, 110.0), 112.0, "b/2"),
        (Fault("stop_dispatcher", "a", 103.0, 110.0, pid=1), 112.0, "b/2"),  # recorded before it was stopped
        (Fault("stop_dispatcher", "b", 104.0, 110.0, pid=2), 112.0, "b/2"),
    ],
)
def test_neither_a_stop_nor_an_outage_explains_that_what_is_recorded_is_sent_again(ledger, fault, at, process):
    ledger.seen.append(seen(at, 2, 200, process))
    ledger.faults.append(fault)
    assert breached(ledger) == {"a duplicate that no fault explains"}
    ledger.rows[1] = ledger.rows[1]._replace(recorded=at - 1.0)
    assert breached(ledger) == set()


@pytest.mark.parametrize(("written", "explained"), [(100.9, True), (70.0, True), (60.0, False)])
def test_two_messages_for_an_attempt_are_explained_by_who_was_killed_after_moving_it_aside(ledger, written, explained):
    ledger.rows[1] = ledger.rows[1]._replace(recorded=101.5)
    ledger.seen.append(seen(101.4, 2, 200, "b/2"))
    ledger.faults.append(KILL._replace(target="dispatcher-2", pid=3))
    ledger.processes.append(KILLED._replace(name="dispatcher-2", pid=3))
    ledger.lying += [waiting()._replace(attempt=2, written=at, waiting=False) for at in (written - 1, written)]
    assert breached(ledger) == (set() if explained else {"a duplicate that no fault explains"})


def test_two_messages_for_an_attempt_are_explained_by_who_was_stopped_after_moving_it_aside(ledger):
    ledger.rows[1] = ledger.rows[1]._replace(recorded=101.5)
    ledger.seen.append(seen(101.4, 2, 200, "b/2"))
    ledger.lying += [waiting()._replace(attempt=2, written=at, waiting=False) for at in (90.0, 91.0)]
    assert breached(ledger) == {"a duplicate that no fault explains"}
    ledger.faults.append(Fault("stop_dispatcher", "c", 92.0, 100.0, pid=3))
    assert breached(ledger) == set()
    ledger.seen[-1].process = "a/1"  # which has the first under way, and knows it
    assert breached(ledger) == {"a duplicate that no fault explains"}


@pytest.mark.parametrize(("temper", "gave", "resent"), [("resetting", "reset", 1), ("healthy", 200, 0)])
def test_an_unanswered_request_may_be_sent_again_at_once(ledger, temper, gave, resent):
    ledger.seen.insert(1, seen(100.2, 1, 500))
    ledger.seen[0].gave = gave
    assert judge(ledger, temper).counts["sent again at once on a new connection"] == resent


def test_an_unanswered_request_may_be_sent_again_but_once(ledger):
    ledger.seen[0].gave = "reset"
    ledger.rows[0] = row(100.02, 1, "retrying", None, "connection_error")
    ledger.seen.insert(1, seen(100.03, 1, "reset"))
    assert breached(ledger, "resetting") == set()
    ledger.seen.insert(2, seen(100.04, 1, "reset"))
    assert breached(ledger, "resetting") == {"a duplicate that no fault explains"}


def test_a_request_that_a_busy_receiver_saw_late_was_made_when_its_record_says(ledger):
    """It was given up before it was seen: the next attempt is not early, however soon it follows."""
    ledger.seen[0].at = 100.9
    assert "an attempt was early" in breached(ledger, "slow")
    ledger.rows[0] = row(100.02, 1, "retrying", None, "timeout")
    assert breached(ledger, "slow") == set()


@pytest.mark.parametrize(
    ("gave", "gave_at", "error", "lasted_s"),
    [(500, 101.52, "bad_status", 1.5), ("reset", 101.52, "connection_error", 1.5), (200, 106.02, "timeout", 3.0)],
)
def test_a_retry_is_early_by_the_failure_before_it_not_by_that_attempts_start(ledger, gave, gave_at, error, lasted_s):
    status = gave if error == "bad_status" else None
    ledger.seen[0].gave, ledger.seen[0].gave_at = gave, gave_at
    ledger.rows[0] = row(100.02, 1, "retrying", status, error)._replace(duration_ms=lasted_s * 1000)
    temper = {"timeout": "slow", "connection_error": "resetting"}.get(error, "healthy")
    for after_s, early in ((0.9, True), (1.01, False)):
        ledger.seen[1].at = ledger.seen[1].gave_at = 100.02 + lasted_s + after_s
        assert breached(ledger, temper) == ({"an attempt was early"} if early else set())


def test_a_kill_is_measured_by_what_was_under_way_and_what_was_sent_again(ledger):
    ledger.seen.append(seen(107.0, 2, 200, "b/2"))
    ledger.faults.append(KILL._replace(began=101.05, ended=101.05))
    ledger.processes.append(KILLED._replace(name="dispatcher-0"))
    ledger.faults[-1] = ledger.faults[-1]._replace(target="dispatcher-0")
    for request in ledger.seen[:2]:
        request.process = "dispatcher-0/1"
    ((kind, _at, under_way, again),) = judge(ledger).kills
    assert (kind, under_way, again) == ("kill_dispatcher", 1, 1)


def test_a_failure_at_a_healthy_receiver_is_explained_by_a_machine_that_held_its_sender_or_the_receivers_up(ledger):
    time_out_at_a_receiver_that_is_quick(ledger)
    ledger.held_up = [HeldUp("b/2", 99.0, 102.0), HeldUp("a/1", 80.0, 82.0)]
    assert breached(ledger) == {"failed, and neither its receiver nor a fault explains it"}
    for process in ("a/1", "receivers/7"):
        ledger.held_up = [HeldUp(process, 99.0, 101.5)]
        assert breached(ledger) == set()


def test_a_process_that_was_stopped_was_not_held_up_by_the_machine(ledger):
    time_out_at_a_receiver_that_is_quick(ledger)
    ledger.held_up = [HeldUp("a/1", 90.0, 101.5)]
    ledger.faults.append(Fault("stop_router", "a", 90.0, 101.5, pid=1))
    assert breached(ledger) == {"failed, and neither its receiver nor a fault explains it"}


def record_late(ledger: Ledger) -> None:
    """The attempt was made 6 s before its process was killed, and was not recorded."""
    ledger.rows[1] = ledger.rows[1]._replace(recorded=108.0)
    ledger.seen.append(seen(107.5, 2, 200, "b/2"))
    ledger.faults.append(KILL._replace(began=107.1, ended=107.1))
    ledger.processes.append(KILLED._replace(ended=107.15))


def test_what_takes_a_while_may_take_longer_where_the_machine_held_us_up_and_in_short_runs(ledger):
    record_late(ledger)
    assert breached(ledger) == {"a duplicate that no fault explains"}
    assert judge(ledger, loose_s=10.0).breaches == []
    ledger.held_up = [HeldUp("postgres/5", 101.0, 102.5)]
    assert breached(ledger) == set()


def test_a_router_that_is_told_to_leave_may_be_cut_off(ledger):
    ledger.processes.append(Process("router-1", 5, 90.0, 120.0, 1))
    assert breached(ledger) == {"a service ended by itself, and no fault explains it"}
    ledger.faults.append(Fault("leave_router", "router-1", 110.0, 110.0, pid=5, part=True))
    assert breached(ledger) == set()
    ledger.processes[-1] = ledger.processes[-1]._replace(status=0)
    assert breached(ledger) == set()


def test_an_outage_lasts_until_the_server_answers(ledger):
    ledger.processes.append(Process("router-1", 5, 90.0, 220.0, 1))
    ledger.faults.append(Fault("disk_full", "broker", 100.0, 110.0, back=130.0))
    assert "a service ended by itself, and no fault explains it" in breached(ledger)
    ledger.faults[-1] = ledger.faults[-1]._replace(back=165.0)
    assert breached(ledger) == set()


def test_an_outage_explains_no_crash(ledger):
    ledger.processes.append(Process("dispatcher-1", 5, 90.0, 110.0, 1))
    ledger.faults.append(Fault("stall_broker", "to broker", 100.0, 110.0))
    assert breached(ledger) == set()
    ledger.processes[-1] = ledger.processes[-1]._replace(status=-6)
    assert breached(ledger) == {"a service ended by itself, and no fault explains it"}


def test_many_duplicates_are_too_many_in_a_long_run(ledger):
    repeat(ledger)
    assert "too many duplicates" not in breached(ledger)
    assert "too many duplicates" in {breach.rule for breach in judge(ledger, timed=True).breaches}


def test_a_slow_recovery_is_a_breach_in_a_long_run(ledger, monkeypatch):
    slow = Recovered("kill_router", 99.5, 31.0, 30.0)
    monkeypatch.setattr(checker, "measure", lambda *_: ([slow], Quiet(0, 0, 0.0, 1.0, 0)))
    assert breached(ledger) == set()
    assert {breach.rule for breach in judge(ledger, timed=True).breaches} == {"recovery took too long"}
    slow = slow._replace(seconds=30.0)
    assert judge(ledger, timed=True).breaches == []
