"""How much earlier than the schedule says a retry came."""

from bench.torture.ledger import Row, Seen
from bench.torture.plan import DELAYS_S


def early_s(before: list[Seen], row: Row | None, request: Seen) -> float:
    """Seconds, negative when it is late, counted from the failure `before` it: that attempt's requests and its record."""
    return failed_at(before, row) + DELAYS_S[min(request.attempt - 1, len(DELAYS_S)) - 1] - request.at


def failed_at(requests: list[Seen], row: Row | None) -> float:
    """When an attempt failed, at the earliest; when it was made, where nothing says more.

    A busy receiver may see a request only when it has been given up: then the record says when it was made. Of a request
    that was repeated nobody knows whether the record tells of the first or of the second.
    """
    made = requests[0].at
    if row is None or row.error is None:
        return made
    if row.error == "bad_status":
        answered = (max(r.at, r.gave_at) for r in requests if r.gave == row.status and r.gave_at is not None)
        return min(answered, default=made)
    return min(made, row.attempted) + (row.duration_ms / 1000 if len(requests) == 1 else 0.0)
