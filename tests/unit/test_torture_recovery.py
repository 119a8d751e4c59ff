"""How the torture judges recoveries: by latency after the fault's end, and only of faults that were alone."""

import pytest

from bench.torture.ledger import Fault
from bench.torture.recovery import measure

Pairs = list[tuple[float, float]]


def stream(until: float, slow: tuple[float, float], latency: float = 5.0) -> Pairs:
    """Ten deliveries a second; those of events produced within `slow` are late."""
    times = (n / 10 for n in range(int(until * 10)))
    return [(at, latency if slow[0] <= at < slow[1] else 0.01) for at in times]


def kill(at: float, ended: float | None = None, kind: str = "kill_dispatcher") -> Fault:
    return Fault(kind, "somebody", at, ended or at)


def seconds(pairs: Pairs, *faults: Fault, others: Pairs | None = None) -> list[float | None]:
    return [recovered.seconds for recovered in measure(pairs, list(faults), others or [])[0]]


def test_it_counts_from_the_end_of_the_fault_to_the_first_quick_seconds():
    assert seconds(stream(100, (20, 27)), kill(20)) == [7.0]
    assert seconds(stream(100, (20, 45)), kill(20, 40, "cut_broker")) == [5.0]
    assert seconds(stream(100, (0, 0)), kill(20)) == [0.0]


def test_a_short_calm_is_no_recovery():
    pairs = [(at, 5.0 if 20 <= at < 24 or 27 <= at < 30 else 0.01) for at, _ in stream(100, (0, 0))]
    assert seconds(pairs, kill(20)) == [10.0]


def test_what_never_recovers_is_judged_when_nothing_else_happened():
    assert seconds(stream(100, (20, 100)), kill(20))[0] > 30
    assert seconds(stream(40, (20, 40)), kill(20)) == [None]  # the stream ended before its time was up


def test_overlapping_faults_are_not_judged():
    assert seconds(stream(100, (20, 30)), kill(20), kill(25)) == [None, None]
    assert seconds(stream(100, (20, 45)), kill(20, 40, "cut_broker"), kill(30)) == [None, None]
    assert seconds(stream(100, (18, 30)), kill(20)) == [None]  # slow before it began
    assert seconds(stream(100, (20, 22)), kill(20), kill(60)) == [2.0, 0.0]


def test_parts_of_a_fault_and_points_that_were_not_reached_do_not_count():
    part, unreached = kill(22)._replace(part=True), kill(23)._replace(reached=False)
    assert seconds(stream(100, (20, 30)), kill(20), part, unreached) == [10.0]


def test_a_second_without_events_proves_nothing():
    pairs = [(at, latency) for at, latency in stream(100, (0, 0)) if not 20 <= at < 33]
    assert seconds(pairs, kill(20)) == [13.0]


def test_brokers_have_longer():
    limits = {kind: measure([], [kill(20, kind=kind)], [])[0][0].limit_s for kind in ("kill_broker", "storm")}
    assert limits == {"kill_broker": 45.0, "storm": 30.0}


def test_the_undisturbed_seconds_are_the_measure_of_what_is_normal():
    _, quiet = measure(stream(100, (80, 82)), [kill(20)], [(30.0, 0.4), (31.0, 1.2)])
    assert (quiet.seconds, quiet.normal) == (53, 51)
    assert (quiet.median_s, quiet.late_s, quiet.others) == (0.01, 1.0, 1)


def test_what_is_late_is_what_is_so_for_this_run_on_this_machine():
    slow_machine = [(at, 5.0 if 20 <= at < 27 else 0.7) for at, _ in stream(100, (0, 0))]
    assert seconds(slow_machine, kill(20)) == [7.0]
    assert measure(slow_machine, [], [])[1].late_s == pytest.approx(2.1)
    assert seconds([(at, latency * 2) for at, latency in slow_machine], kill(20)) == [7.0]


def test_seconds_in_which_others_used_the_machine_do_not_count():
    others = [(float(at), 1.0) for at in (10, 22, 23, 50)]
    assert seconds(stream(100, (20, 27)), kill(20), others=others) == [5.0]
    assert seconds(stream(100, (20, 27)), kill(20), others=[(at, 0.4) for at, _ in others]) == [7.0]
    most = [(float(at), 1.0) for at in range(21, 25)]
    assert seconds(stream(100, (20, 27)), kill(20), others=most) == [None]
