"""When a circuit opens, when it probes, when it closes."""

import pytest

from go2hooks.core.flow.circuit_breaker import CircuitBreaker, CircuitLimits

LIMITS = CircuitLimits(failures=3, probe_s=1.0, probe_max_s=4.0)


@pytest.fixture
def circuit() -> CircuitBreaker:
    """Open since second 3: its attempts began at 0, 1 and 2, and each took a second."""
    circuit = CircuitBreaker(LIMITS)
    for began in range(3):
        assert not circuit.is_open
        assert circuit.fail(began, now=began + 1.0)
    return circuit


def test_a_circuit_opens_with_the_last_failure_that_it_allows(circuit):
    assert circuit.is_open
    assert circuit.probe_at == 4.0


def test_pauses_between_probes_grow_by_half_up_to_their_bound(circuit):
    pauses = []
    for _ in range(6):
        began = circuit.probe_at
        circuit.fail(began, now=began)
        pauses.append(circuit.probe_at - began)
    assert pauses == [1.5, 2.25, 3.375, 4.0, 4.0, 4.0]


def test_an_attempt_from_before_the_circuit_opened_says_nothing_of_it(circuit):
    assert not circuit.fail(2.5, now=3.5)
    assert circuit.probe_at == 4.0


def test_a_probe_that_succeeds_closes_the_circuit(circuit):
    circuit.succeed(circuit.probe_at)
    assert not circuit.is_open


def test_a_failure_that_began_before_the_latest_success_does_not_count():
    circuit = CircuitBreaker(LIMITS)
    circuit.succeed(5.0)
    assert [circuit.fail(began, now=9.0) for began in (4.0, 5.0, 6.0)] == [False, False, True]
