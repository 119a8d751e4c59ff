"""One row of `attempts`: the attempt, its outcome, and the delivery's state after it."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from go2hooks.core.domain.delivery import ON_REQUEST, Delivery, Position
from go2hooks.core.domain.outcome import (
    OUR_FAILURES,
    Answer,
    DeadLetter,
    Delivered,
    Done,
    Failed,
    Failure,
    Outcome,
    Response,
    RetryAt,
    Skip,
    SkipReason,
    State,
    Step,
)

_SKIP_MESSAGES: Final = {
    SkipReason.DISABLED: "The webhook was disabled when this was to be sent.",
    SkipReason.DELETED: "The webhook was deleted.",
    SkipReason.UNSUBSCRIBED: "The webhook no longer subscribes to this event.",
}


class AttemptRecord(NamedTuple):
    """A row of `attempts`, in the order of its columns. Times in milliseconds since the epoch."""

    webhook_id: str
    created_ms: int
    delivery_id: str
    attempt: int
    account_id: str
    event_id: str
    event: str
    kind: str
    state: State
    status_code: int | None
    duration_ms: float | None
    error_code: str | None
    error_message: str | None
    next_attempt_ms: int | None
    attempted_ms: int
    response_excerpt: str | None
    position: Position | None
    location: str | None = None  #: this and `retry_after`: headers of the answer, if it was no success
    retry_after: str | None = None
    remote_address: str | None = None  #: the receiver's, if there was a connection

    @property
    def key(self) -> tuple[str, int, str, int]:
        """The primary key: the same for the same attempt, however often it is recorded."""
        return self.webhook_id, self.created_ms, self.delivery_id, self.attempt

    @property
    def counts(self) -> bool:
        """Whether it changes the webhook's count of consecutive failures."""
        return (
            self.kind not in ON_REQUEST
            and self.state not in (State.SKIPPED, State.PENDING)
            and self.error_code not in OUR_FAILURES
        )

    @property
    def failed(self) -> bool:
        return self.state in (State.RETRYING, State.FAILED)


def failing_and_others(records: Iterable[AttemptRecord]) -> tuple[set[str], set[str]]:
    """The webhooks of the records that count: those with a failure, and those without."""
    failing: set[str] = set()
    others: set[str] = set()
    for record in records:
        if record.counts:
            (failing if record.failed else others).add(record.webhook_id)
    return failing, others - failing


_STATE_AFTER: Final = {Done: State.DELIVERED, RetryAt: State.RETRYING, DeadLetter: State.FAILED}


def record_attempt(
    delivery: Delivery,
    position: Position,
    outcome: Outcome,
    step: Step,
    attempted_ms: int,
    response: Response,
) -> AttemptRecord:
    """The row for an attempt that was made."""
    status, code, message = _described(outcome)
    excerpt = location = retry_after = None
    if isinstance(response, Answer):
        excerpt = response.excerpt.decode("utf-8", "replace") if response.excerpt else None
        location, retry_after = response.location, response.retry_after
    return AttemptRecord(
        delivery.webhook_id, delivery.origin_ms, delivery.id, delivery.attempt, delivery.account_id, delivery.event_id,
        delivery.event, delivery.kind, _STATE_AFTER[type(step)], status, response.duration_ms, code, message,
        step.due_ms if isinstance(step, RetryAt) else None, attempted_ms, excerpt, position, location, retry_after,
        response.remote_address,
    )  # fmt: skip


def record_skip(delivery: Delivery, position: Position, skip: Skip, now_ms: int) -> AttemptRecord:
    """The row for an attempt that was not made and never will be."""
    return _unsent(
        delivery, position, delivery.attempt, State.SKIPPED, skip.reason, _SKIP_MESSAGES[skip.reason], now_ms
    )


def without_retry(record: AttemptRecord, why: str) -> AttemptRecord:
    """The row of an attempt whose retry Kafka refused: the last attempt. A failure on our side keeps its code."""
    code = record.error_code if record.error_code in OUR_FAILURES else Failure.RETRY_NOT_KEPT
    message = f"{record.error_message} There is no further attempt: it could not be kept ({why})."
    return record._replace(state=State.FAILED, error_code=code, error_message=message, next_attempt_ms=None)


def record_pending(delivery: Delivery, position: Position | None, now_ms: int) -> AttemptRecord:
    """The row for a delivery that waits for its first attempt."""
    return _unsent(delivery, position, 0, State.PENDING, None, None, now_ms)


def _unsent(
    delivery: Delivery,
    position: Position | None,
    attempt: int,
    state: State,
    code: str | None,
    message: str | None,
    now_ms: int,
) -> AttemptRecord:
    return AttemptRecord(
        delivery.webhook_id, delivery.origin_ms, delivery.id, attempt, delivery.account_id, delivery.event_id,
        delivery.event, delivery.kind, state, None, None, code, message, None, now_ms, None, position,
    )  # fmt: skip


def _described(outcome: Outcome) -> tuple[int | None, str | None, str | None]:
    match outcome:
        case Delivered(status):
            return status, None, None
        case Failed(failure, message, status):
            return status, failure, message


# --- reducing a record that Postgres refuses

_UNWRITABLE: Final = "The record of this attempt could not be written as it was."
_LONGEST: Final = 200  # characters: four such values fit into an index entry, which may have 2,704 bytes
_SMALLINT: Final = 32767
_BIGINT: Final = 2**63 - 1
_LAST_MS: Final = 253_402_300_799_999  # of the year 9999


def simplify(record: AttemptRecord) -> AttemptRecord | None:
    """The same record with less: first without the receiver's text, then with every value cut to its column's limits.

    None when nothing is left that Postgres could refuse.
    """
    if record.error_message != _UNWRITABLE:
        return record._replace(error_message=_UNWRITABLE, response_excerpt=None, location=None, retry_after=None)
    bare = _bare(record)
    return None if bare == record else bare


def _bare(record: AttemptRecord) -> AttemptRecord:
    position = record.position
    if position is not None:
        position = Position(_plain(position.topic), _small(position.partition), max(0, min(position.offset, _BIGINT)))
    duration_ms, next_ms = record.duration_ms, record.next_attempt_ms
    return AttemptRecord(
        _plain(record.webhook_id), _time(record.created_ms), _plain(record.delivery_id), _small(record.attempt),
        _plain(record.account_id), _plain(record.event_id), _plain(record.event), _plain(record.kind), record.state,
        None if record.status_code is None else _small(record.status_code),
        None if duration_ms is None or not 0 <= duration_ms <= _LAST_MS else duration_ms,
        None if record.error_code is None else _plain(record.error_code), _UNWRITABLE,
        None if next_ms is None else _time(next_ms), _time(record.attempted_ms), None, position,
        remote_address=None if record.remote_address is None else _plain(record.remote_address),
    )  # fmt: skip


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[:_LONGEST])


def _small(number: int) -> int:
    return max(-_SMALLINT, min(number, _SMALLINT))


def _time(ms: int) -> int:
    return max(0, min(ms, _LAST_MS))


# --- PostgreSQL's COPY text format: we write it faster than the driver writes rows

_NULL: Final = "\\N"
_ESCAPES: Final = str.maketrans(
    {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": "\N{REPLACEMENT CHARACTER}"}
    | dict.fromkeys(range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}")  # lone surrogates: not valid Unicode text
)


@lru_cache(maxsize=64)
def _second(epoch_s: int) -> str:
    from datetime import UTC, datetime  # noqa: PLC0415  # runs once a second

    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%d %H:%M:%S")


@lru_cache(maxsize=4096)  # thousands of attempts share a second's milliseconds
def timestamptz(ms: int) -> str:
    """`2024-01-01 12:00:00.123+00`."""
    return f"{_second(ms // 1000)}.{ms % 1000:03d}+00"


def _text(value: str | None) -> str:
    if value is None:
        return _NULL
    # Almost no text needs escaping, and this check costs a tenth of `translate`.
    return value if value.isprintable() and "\\" not in value else value.translate(_ESCAPES)


def _hundredths(value: float) -> str:
    """The value with two decimals, without the cost of formatting a float: Postgres reads `150e-2` as 1.5."""
    return f"{int(value * 100 + 0.5)}e-2"


def _place(topic: str, partition: int, offset: int) -> str:
    return f"{_text(topic)}\t{partition}\t{offset}"


def copy_line(record: AttemptRecord) -> str:
    """One line of COPY text, in the order of the columns, newline included."""
    (
        webhook_id, created_ms, delivery_id, attempt, account_id, event_id, event, kind, state, status, duration_ms,
        error_code, error_message, next_attempt_ms, attempted_ms, excerpt, position, location, retry_after, remote_address,
    ) = record  # fmt: skip
    place = f"{_NULL}\t{_NULL}\t{_NULL}" if position is None else _place(*position)
    names = f"{webhook_id}{delivery_id}{account_id}{event_id}{event}{kind}"
    if not names.isprintable() or "\\" in names:  # one check for all of them: escapes are very rare
        webhook_id, delivery_id, account_id = _text(webhook_id), _text(delivery_id), _text(account_id)
        event_id, event, kind = _text(event_id), _text(event), _text(kind)
    return (
        f"{webhook_id}\t{timestamptz(created_ms)}\t{delivery_id}\t{attempt}\t{account_id}\t"
        f"{event_id}\t{event}\t{kind}\t{state}\t{_NULL if status is None else status}\t"
        f"{_NULL if duration_ms is None else _hundredths(duration_ms)}\t{_text(error_code)}\t{_text(error_message)}\t"
        f"{_NULL if next_attempt_ms is None else timestamptz(next_attempt_ms)}\t{timestamptz(attempted_ms)}\t"
        f"{_text(excerpt)}\t{place}\t{_text(location)}\t{_text(retry_after)}\t"
        f"{_NULL if remote_address is None else remote_address}\n"
    )
