"""The outcome of an attempt, and the next step: two closed unions for `match`."""

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
    RETRY_NOT_KEPT = "retry_not_kept"  # the attempt failed, and Kafka refused the message of its retry


#: Failures on our side: they are retried like any other, but no webhook is disabled for them.
OUR_FAILURES: Final = frozenset({Failure.SECRET_UNAVAILABLE, Failure.INTERNAL_ERROR, Failure.PROXY_ERROR})


class Answer(NamedTuple):
    """The parts of a receiver's response that we use."""

    status: int
    duration_ms: float  #: from the first step (pool or connect) to the end of the response's head
    retry_after: str | None  #: the header's raw value
    excerpt: bytes  #: the first bytes of the body, capped
    location: str | None = None  #: the header's raw value, capped
    remote_address: str | None = None  #: the receiver's; None if a proxy made the connection


class NoAnswer(NamedTuple):
    """No response arrived. `message` is one sentence for the customer, without our addresses."""

    failure: Failure
    message: str
    duration_ms: float
    remote_address: str | None = None  #: the receiver's, if there was a connection


Response = Answer | NoAnswer


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver answered 2xx, the only success."""

    status: int


@dataclass(frozen=True, slots=True)
class Failed:
    """Any other result. Every failure is retried by the same schedule, except GONE."""

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
    """Wait in tier `tier` (an index into the delays) until `due_ms`, then make the next attempt."""

    tier: int
    due_ms: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """There is no further attempt: store the delivery with its last error."""


@dataclass(frozen=True, slots=True)
class Skip:
    """The webhook no longer wants the delivery: record that, and send nothing."""

    reason: SkipReason


Step = Done | RetryAt | DeadLetter | Skip


class State(StrEnum):
    """A delivery's state after a record; the last record's state is its status in the API."""

    PENDING = "pending"
    DELIVERED = "delivered"
    RETRYING = "retrying"
    FAILED = "failed"
    SKIPPED = "skipped"
