"""All SQL of `attempts`, the table of deliveries' attempts.

`records` writes it, `partitions` makes and drops its days. `deliveries` and `account_deliveries` read it for the API,
`standings` for operators, `replayable` for replays.
"""

from go2hooks.postgres.attempts.partitions import maintain_partitions
from go2hooks.postgres.attempts.records import (
    GONE_REASON,
    AttemptKey,
    DisablePolicy,
    find_states,
    from_ms,
    to_ms,
    write_batch,
)

__all__ = [
    "GONE_REASON",
    "AttemptKey",
    "DisablePolicy",
    "find_states",
    "from_ms",
    "maintain_partitions",
    "to_ms",
    "write_batch",
]
