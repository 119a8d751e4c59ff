"""What came of an attempt, and what happens next: two closed sets, matched clause by clause."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple


class Failure(StrEnum):
    """Why an attempt failed; recorded, and shown to the customer as `error.code`."""

    BAD_STATUS = "bad_status"
    REDIRECT = "redirect"
    GONE = "gone"
    TIMEOUT = "timeout"
    DNS_ERROR = "dns_error"
    TLS_ERROR = "tls_error"
    CONNECTION_REFUSED = "connection_refused"
    CONNECTION_ERROR = "connection_error"
    INVALID_RESPONSE = "invalid_response"
    BLOCKED_ADDRESS = "blocked_address"
    INVALID_URL = "invalid_url"
    SECRET_UNAVAILABLE = "secret_unavailable"  # noqa: S105  # a failure's name, not a secret
    INTERNAL_ERROR = "internal_error"
    PROXY_ERROR = "proxy_error"  # of the operator's egress proxy
    RETRY_NOT_KEPT = "retry_not_kept"  # it failed, and Kafka refuses the message of its retry


#: Failures of Go2's own making: retried like any other, but no receiver is disabled for them.
OUR_FAILURES: Final = frozenset({Failure.SECRET_UNAVAILABLE, Failure.INTERNAL_ERROR, Failure.PROXY_ERROR})


class Answer(NamedTuple):
    """A receiver's response, as far as anybody reads it."""

    status: int
    duration_ms: float  #: from the first step (pool or connect) to the end of the response's head
    retry_after: str | None  #: the header's raw value
    excerpt: bytes  #: the first bytes of the body, capped
    location: str | None = None  #: the header's raw value, capped
    remote_address: str | None = None  #: of the connection; None where a proxy made it


class NoAnswer(NamedTuple):
    """No response arrived; `message` is one sentence for the customer, without addresses of ours."""

    failure: Failure
    message: str
    duration_ms: float
    remote_address: str | None = None  #: of the connection, where one came about


Response = Answer | NoAnswer


@dataclass(frozen=True, slots=True)
class Delivered:
    """A 2xx: the only success."""

    status: int


@dataclass(frozen=True, slots=True)
class Failed:
    """Anything else. Every failure is retried by the same schedule, but for GONE: its receiver wants no more."""

    failure: Failure
    message: str
    status: int | None = None
    retry_after_s: float | None = None


Outcome = Delivered | Failed


class SkipReason(StrEnum):
    """Why a delivery was not attempted; recorded as its error."""

    DISABLED = "webhook_disabled"
    DELETED = "webhook_deleted"
    UNSUBSCRIBED = "webhook_unsubscribed"


@dataclass(frozen=True, slots=True)
class Done:
    """Delivered: nothing more to do."""


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Wait in tier `tier` (index into the delays) until `due_ms`, then make the next attempt."""

    tier: int
    due_ms: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The schedule is exhausted (or the delivery was a test): keep it with its last error."""


@dataclass(frozen=True, slots=True)
class Skip:
    """The webhook no longer wants it: record that and move on."""

    reason: SkipReason


Step = Done | RetryAt | DeadLetter | Skip


class State(StrEnum):
    """A delivery's state after a record; the last one is its status in the API."""

    PENDING = "pending"
    DELIVERED = "delivered"
    RETRYING = "retrying"
    FAILED = "failed"
    SKIPPED = "skipped"
