"""Advisory locks of Postgres: each names work that one process at a time may do."""

from enum import IntEnum


class Lock(IntEnum):
    """A key of `pg_advisory_xact_lock`. All versions must agree about them."""

    MIGRATION = 0x60_2A66
    PARTITIONS = 0x60_2A77
    ROLLUPS = 0x60_2A78
