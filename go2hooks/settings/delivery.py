"""One attempt, its retries, and when failures disable a webhook."""

import re
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, field_validator, model_validator
from pydantic_settings import NoDecode

from go2hooks.settings.environment import Environment

_DURATION: Final = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h|d)$")
_UNIT_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration_s(text: str) -> float:
    """`250ms`, `5s`, `2m`, `1h` in seconds. Raises ValueError for anything else."""
    match = _DURATION.match(text.strip())
    if match is None:
        msg = f"{text!r} is no duration: write a number and a unit, such as 250ms, 5s, 2m, 1h"
        raise ValueError(msg)
    return float(match[1]) * _UNIT_S[match[2]]


def _durations(value: Any) -> Any:
    return tuple(parse_duration_s(part) for part in value.split(",")) if isinstance(value, str) else value


class DeliverySettings(Environment):
    retry_delays: Annotated[tuple[float, ...], NoDecode, BeforeValidator(_durations)] = Field(
        (5.0, 30.0, 120.0, 600.0, 3600.0), description="delay before each retry, such as 5s,30s,2m,10m,1h"
    )
    delivery_timeout_s: PositiveFloat = Field(10.0, description="an attempt in all, connect included, in seconds")
    disable_after_failures: PositiveInt = Field(10, description="consecutive failed attempts that disable a webhook")
    disable_min_span_s: float = Field(
        0.0, ge=0, description="those failures must span at least this long, in seconds; 0 is the page's literal rule"
    )
    webhook_id_header: Literal["webhook", "delivery"] = Field(
        "webhook", description="what X-Webhook-ID carries: the webhook's id or the delivery's"
    )
    secret_overlap_s: PositiveFloat = Field(
        86400.0, le=1e9, description="how long the old secret signs too after a rotation, in seconds"
    )
    response_body_limit_bytes: PositiveInt = Field(
        16384, description="bytes of a response body read before the connection is closed"
    )
    response_body_timeout_s: PositiveFloat = Field(
        2.0,
        description="wait for the end of a response body once its head has arrived; then the status counts and the connection "
        "is closed, in seconds",
    )
    response_excerpt_bytes: int = Field(1024, ge=0, description="bytes of a response body kept in the attempt's record")
    sender: Literal["protocol", "aiohttp"] = Field("protocol", description="HTTP client that carries the POSTs")

    @field_validator("retry_delays")
    @classmethod
    def _positive(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or any(delay <= 0 for delay in value):
            raise ValueError("name at least one delay, each longer than 0")
        return value

    @model_validator(mode="after")
    def _excerpt_is_read(self) -> Self:
        if self.response_excerpt_bytes > self.response_body_limit_bytes:
            raise ValueError(
                "GO2HOOKS_RESPONSE_EXCERPT_BYTES must not exceed GO2HOOKS_RESPONSE_BODY_LIMIT_BYTES: more is not read"
            )
        return self
