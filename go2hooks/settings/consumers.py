"""When a consumer loses its partitions, and how long revoking them may take."""

from typing import Final, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from go2hooks.settings.environment import Environment

MAX_POLL_INTERVAL_S: Final = 300.0  #: Kafka's `max.poll.interval.ms`, which our consumers set to this
_LONGEST_REVOKE_S: Final = MAX_POLL_INTERVAL_S - 30.0  # the rest of a rebalance may take half a minute


class ConsumerSettings(Environment):
    kafka_session_timeout_ms: PositiveInt = Field(
        6000, description="a consumer silent for this long loses its partitions"
    )
    revoke_timeout_s: PositiveFloat = Field(
        12.0, description="wait for attempts under way when a partition moves, in seconds"
    )

    @model_validator(mode="after")
    def _within_poll_interval(self) -> Self:
        if self.revoke_timeout_s > _LONGEST_REVOKE_S:
            raise ValueError(
                f"GO2HOOKS_REVOKE_TIMEOUT_S must not exceed {_LONGEST_REVOKE_S:g} s: a consumer that has "
                f"not polled for {MAX_POLL_INTERVAL_S:g} s is thrown out of its group"
            )
        if self.kafka_session_timeout_ms > MAX_POLL_INTERVAL_S * 1000:
            raise ValueError(
                f"GO2HOOKS_KAFKA_SESSION_TIMEOUT_MS must not exceed {MAX_POLL_INTERVAL_S * 1000:g}, the poll interval"
            )
        return self
