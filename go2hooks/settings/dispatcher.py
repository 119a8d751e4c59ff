"""A dispatcher's bounds: deliveries in memory, attempts under way, connections."""

from typing import Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from go2hooks.settings.environment import Environment


class DispatcherSettings(Environment):
    window_deliveries: PositiveInt = Field(
        4000,
        description="first attempts in memory per dispatcher, and as many retries that are due, before Kafka has to wait",
    )
    window_mib: int = Field(
        32,
        ge=4,
        description="the same in MiB; where the average is above GO2HOOKS_WINDOW_MIB by GO2HOOKS_WINDOW_DELIVERIES, this counts",
    )
    overflow_window_deliveries: PositiveInt = Field(1000, description="overflowed deliveries in memory per dispatcher")
    retry_buffer_messages: PositiveInt = Field(250, description="waiting retries held in memory per partition")
    max_sends: PositiveInt = Field(1000, description="attempts under way at once per dispatcher")
    webhook_max_sends: PositiveInt = Field(64, description="attempts under way at once to one webhook")
    circuit_failures: PositiveInt = Field(
        5, description="consecutive failures after which a webhook gets one probe at a time"
    )
    circuit_probe_ms: PositiveInt = Field(
        1000, description="pause before the first probe; grows by half each time, up to 30 s"
    )
    pool_idle_s: PositiveFloat = Field(
        60.0, description="an idle connection to a receiver is closed after this, in seconds"
    )
    pool_max_idle: PositiveInt = Field(2000, description="idle connections to receivers kept open per dispatcher")
    client_certificates_open: PositiveInt = Field(
        64, description="client certificates kept ready per dispatcher, close to 1 MiB each; others are opened anew"
    )

    @model_validator(mode="after")
    def _window_holds_sends(self) -> Self:
        if self.window_deliveries < self.max_sends:
            raise ValueError(
                "GO2HOOKS_WINDOW_DELIVERIES must not be below GO2HOOKS_MAX_SENDS, which could never be reached"
            )
        return self

    @property
    def window_unit_bytes(self) -> int:
        """Largest size, in bytes, of a delivery that counts as one in the windows; a larger one counts as several."""
        return max(1, self.window_mib * 2**20 // self.window_deliveries)
