"""Whatever the dispatcher records as the reason of a failure, the dashboard says what to do about it."""

import pytest

from go2hooks.core.domain.classify import classify
from go2hooks.core.domain.outcome import Answer, Failed, Failure, NoAnswer, SkipReason
from go2hooks.core.domain.record import _SKIP_MESSAGES
from go2hooks.core.security.egress import Meaning
from services.api.dashboard.remedies import remedy
from services.dispatcher.http import failures
from services.dispatcher.http.failures import Cause, Phase

URL = "https://example.com/hooks/go2"
CAUSES = (
    [each for each in vars(failures).values() if isinstance(each, Cause)]
    + [Cause(Failure.TLS_ERROR, each) for each in failures._CERTIFICATE_FAULTS.values()]
    + [Cause(Failure.TLS_ERROR, failures._CERTIFICATE_OTHER)]
    + [Cause(Failure.TLS_ERROR, each) for _, each in failures._TLS_REASONS]
    + [failures.timeout(10, phase) for phase in Phase]
    + [failures.refused_by_proxy(meaning, status) for meaning in Meaning for status in (200, 502)]
    + [
        Cause(Failure.TLS_ERROR, "The webhook's client certificate expired at 2026-11-20T12:00:00Z."),
        Cause(Failure.SECRET_UNAVAILABLE, "The webhook's secrets could not be read."),
        Cause(Failure.INVALID_URL, "The webhook was deleted."),
        Cause(Failure.INVALID_URL, "The URL must be complete, such as https://example.com/webhooks."),
        Cause(Failure.RETRY_NOT_KEPT, "The receiver answered 500. There is no further attempt: it could not be kept."),
    ]
)


def attempt(code, message="", status=None, location=None):
    return {
        "errorCode": code,
        "errorMessage": message,
        "statusCode": status,
        "responseHeaders": {"location": location, "retry-after": None},
    }


def answered(status, location=None):
    outcome = classify(Answer(status, 1.0, None, b"", location), 0)
    assert isinstance(outcome, Failed)
    return remedy(attempt(outcome.failure, outcome.message, status, location), URL)


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.message)
def test_every_cause_has_a_remedy(cause):
    outcome = classify(NoAnswer(cause.failure, cause.message, 1.0), 0)
    said = remedy(attempt(outcome.failure, outcome.message), URL)
    assert said
    assert said[0].isupper()
    assert said.endswith((".", "`."))


def test_no_failure_and_no_reason_to_skip_is_without_one():
    told = {cause.failure for cause in CAUSES} | {Failure.GONE, Failure.REDIRECT, Failure.BAD_STATUS}
    assert told == set(Failure)
    assert all(remedy(attempt(reason, _SKIP_MESSAGES[reason]), URL) for reason in SkipReason)


def test_tls_causes_are_told_apart():
    """Each is mended in another way, so the general advice is for the general failure alone."""
    said = {
        message: remedy(attempt(Failure.TLS_ERROR, message), URL) for message in failures._CERTIFICATE_FAULTS.values()
    }
    assert "Renew" in said["The TLS certificate has expired."]
    assert "names the host" in said["The TLS certificate is for another host name."]
    assert "whole chain" in said["The TLS certificate cannot be verified: an intermediate certificate is missing."]
    assert len(set(said.values())) >= len(said) - 3


@pytest.mark.parametrize("status", [*range(300, 600), 999])
def test_every_status_that_is_no_success_has_a_remedy(status):
    assert answered(status)


def test_the_statuses_that_receivers_answer_with_are_told_apart():
    common = [400, 401, 403, 404, 405, 409, 410, 413, 415, 422, 429, 500, 502, 503, 504]
    assert len({answered(status) for status in common}) == len(common)
    assert "client_max_body_size" in answered(413)
    assert "enable" in answered(410)


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("https://www.example.com/hooks/go2", "redirects to https://www.example.com/hooks/go2: if that"),
        ("/hooks/go2/", "redirects to https://example.com/hooks/go2/: if that"),
        ("http://example.com/x", "not encrypted"),
        ("https://[broken", "redirects to https://[broken"),
        (None, "follow no redirect"),
        ("", "follow no redirect"),
    ],
)
def test_a_redirect_names_the_url_to_use(location, said):
    assert said in answered(308, location)


def test_a_success_needs_none():
    assert remedy(attempt(None), URL) is None
