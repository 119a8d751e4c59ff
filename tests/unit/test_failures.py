"""Errors of the network as failures: one sentence each, which tells nothing about our network."""

import errno
import os
import ssl

import pytest

from go2hooks.core.domain.outcome import Failure
from services.dispatcher.http.failures import DnsError, Phase, explain, timeout
from services.dispatcher.http.guard import BlockedAddressError


def os_error(number: int) -> OSError:
    return OSError(number, f"connect call failed ('10.1.2.3', 443): {os.strerror(number)}")


CASES = [
    (BlockedAddressError(), Phase.CONNECTING, Failure.BLOCKED_ADDRESS),
    (DnsError(temporary=True), Phase.LOOKING_UP, Failure.DNS_ERROR),
    (DnsError(temporary=False), Phase.LOOKING_UP, Failure.DNS_ERROR),
    (os_error(errno.ECONNREFUSED), Phase.CONNECTING, Failure.CONNECTION_REFUSED),
    (os_error(errno.ECONNRESET), Phase.CONNECTING, Failure.CONNECTION_ERROR),
    (os_error(errno.EHOSTUNREACH), Phase.CONNECTING, Failure.CONNECTION_ERROR),
    (os_error(errno.ENETUNREACH), Phase.CONNECTING, Failure.CONNECTION_ERROR),
    (os_error(errno.EMFILE), Phase.CONNECTING, Failure.INTERNAL_ERROR),
    (
        OSError("Multiple exceptions: [Errno 111] ('10.0.0.1', 80), [Errno 113]"),
        Phase.CONNECTING,
        Failure.CONNECTION_ERROR,
    ),
    (ConnectionResetError(), Phase.HANDSHAKE, Failure.TLS_ERROR),
    (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), Phase.HANDSHAKE, Failure.TLS_ERROR),
    (ssl.SSLError(1, "something that OpenSSL says tomorrow"), Phase.HANDSHAKE, Failure.TLS_ERROR),
    (RuntimeError("10.1.2.3 is unhappy"), Phase.CONNECTING, Failure.CONNECTION_ERROR),
    (RuntimeError("10.1.2.3 is unhappy"), Phase.WAITING, Failure.CONNECTION_ERROR),
]


@pytest.mark.parametrize(("error", "phase", "failure"), CASES, ids=lambda value: repr(value)[:40])
def test_every_error_is_a_failure_with_a_sentence(error: Exception, phase: Phase, failure: Failure) -> None:
    cause = explain(error, phase)
    assert cause.failure == failure
    assert cause.message.endswith(".")
    assert cause.message[0].isupper()
    assert "10." not in cause.message
    assert "rrno" not in cause.message


def test_a_timeout_says_how_long_and_while_what() -> None:
    assert timeout(10.0, Phase.WAITING).message == "Timed out after 10 s while waiting for a response."
