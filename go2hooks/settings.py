"""Every setting: one `GO2HOOKS_*` variable each, units in the name, validated at start, listed by `go2hooks config`."""

import base64
import binascii
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, PositiveFloat, PositiveInt, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import NoDecode

from go2hooks.core.errors import SettingsError
from go2hooks.database_url import is_connection, read_url
from go2hooks.environment import Environment, split_list, variable
from go2hooks.kafka_settings import KafkaSettings
from go2hooks.target_settings import TargetSettings

S = TypeVar("S", bound=Environment)

_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h|d)$")
MAX_POLL_INTERVAL_S = 300.0  #: Kafka's `max.poll.interval.ms`, which our consumers set to this
_POLL_MARGIN_S = 30.0  # what else a rebalance may take
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration_s(text: str) -> float:
    """`250ms`, `5s`, `2m`, `1h` in seconds. Raises ValueError for anything else."""
    match = _DURATION.match(text.strip())
    if match is None:
        msg = f"{text!r} is no duration: write a number and a unit, such as 250ms, 5s, 2m, 1h"
        raise ValueError(msg)
    return float(match[1]) * _UNIT_S[match[2]]


class Settings(KafkaSettings, TargetSettings):
    """What every service reads. Frozen; the environment is read once, at start."""

    # --- process
    build: Literal["auto", "compiled", "plain"] = Field(
        "auto",
        description="which of our modules run: compiled where there are such of exactly these sources, else plain; or one of them",
    )

    # --- servers
    kafka_session_timeout_ms: PositiveInt = Field(
        6000, description="a consumer silent for this long loses its partitions"
    )
    database_url: SecretStr = Field(
        SecretStr("postgresql://postgres@localhost:5432/go2hooks"), description="Postgres connection URL"
    )
    database_direct_url: SecretStr | None = Field(
        None,
        description="the same past a pooler, for migrations and for being told of changes; without it they are looked for "
        "every GO2HOOKS_RECONCILE_INTERVAL_MS behind a pooler",
    )
    secret_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (),
        description="keys that encrypt webhook secrets at rest: base64 of 32 bytes each, comma separated; "
        "the first encrypts, all decrypt",
    )

    # --- topics
    topic_partitions: PositiveInt = Field(8, description="partitions of each topic that `go2hooks topics` creates")
    topic_replication: int = Field(
        -1, ge=-1, le=32767, description="replicas of each topic; -1 takes the broker's default"
    )
    topic_config_left_out: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="topic settings that are neither set nor checked, as where a policy refuses them, comma separated",
    )
    log_retention_days: PositiveInt = Field(
        7, description="how long events, deliveries and retries stay in Kafka, in days"
    )

    schema_dir: Path | None = Field(
        None, description="folder of further .avsc files: schemas of producers that are newer than this version"
    )

    # --- delivery
    retry_delays: Annotated[tuple[float, ...], NoDecode] = Field(
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

    # --- bounds
    webhooks_per_account: PositiveInt = Field(1000, description="webhooks that an account may have")
    window_deliveries: PositiveInt = Field(
        4000,
        description="first attempts in memory per dispatcher, and as many retries that are due, before Kafka has to wait",
    )
    window_mib: int = Field(
        32,
        ge=4,
        description="the same in MiB; where the average is above GO2HOOKS_WINDOW_MIB by GO2HOOKS_WINDOW_DELIVERIES, this counts",
    )
    max_sends: PositiveInt = Field(1000, description="attempts under way at once per dispatcher")
    webhook_max_sends: PositiveInt = Field(64, description="attempts under way at once to one webhook")
    circuit_failures: PositiveInt = Field(
        5, description="consecutive failures after which a webhook gets one probe at a time"
    )
    circuit_probe_ms: PositiveInt = Field(
        1000, description="pause before the first probe; grows by half each time, up to 30 s"
    )
    overflow_window_deliveries: PositiveInt = Field(1000, description="overflowed deliveries in memory per dispatcher")
    pool_idle_s: PositiveFloat = Field(
        60.0, description="an idle connection to a receiver is closed after this, in seconds"
    )
    pool_max_idle: PositiveInt = Field(2000, description="idle connections to receivers kept open per dispatcher")
    client_certificates_open: PositiveInt = Field(
        64, description="client certificates kept ready per dispatcher, close to 1 MiB each; others are opened anew"
    )
    retry_buffer_messages: PositiveInt = Field(250, description="waiting retries held in memory per partition")
    record_batch_ms: PositiveInt = Field(
        50, description="attempt records are written at least this often, in milliseconds"
    )
    record_batch_rows: PositiveInt = Field(2000, description="attempt records written in one batch at most")
    router_window_messages: PositiveInt = Field(
        20000, description="deliveries produced and not yet acknowledged per router"
    )
    router_lookahead_events: PositiveInt = Field(
        100000, description="events that a router reads ahead, to take turns between accounts"
    )
    router_lookahead_mib: PositiveInt = Field(32, description="size of these events at most, in MiB")
    router_gather_ms: int = Field(
        20,
        ge=0,
        description="events of an account that brings a third of all, beside others, wait for each other, in milliseconds",
    )
    replays_per_account: PositiveInt = Field(5, description="replays of an account that may run at once")
    replay_per_s: PositiveInt = Field(
        2000, description="deliveries per second that a replayer sends at most, of all replays together"
    )
    drain_timeout_s: PositiveFloat = Field(25.0, description="from SIGTERM to exit at most, in seconds")
    revoke_timeout_s: PositiveFloat = Field(
        12.0, description="wait for attempts under way when a partition moves, in seconds"
    )

    # --- records
    attempts_retention_days: PositiveInt = Field(30, description="how long attempt records are kept, in days")
    audit_retention_days: PositiveInt = Field(365, description="how long the audit log of changes is kept, in days")
    reconcile_interval_ms: PositiveInt = Field(
        800, description="how often the replica of webhooks checks for missed changes"
    )

    stray_check_s: PositiveFloat = Field(
        900.0, description="how often a dispatcher counts deliveries that got lost, in seconds"
    )
    stray_grace_s: PositiveFloat = Field(
        300.0, description="how long after its due time a delivery that nobody sends counts as lost, in seconds"
    )

    # --- listening
    api_host: str = Field("127.0.0.1", description="address that the API listens on")
    api_port: int = Field(8080, ge=0, le=65535, description="port of the API; 0 takes a free one")
    api_threads: PositiveInt = Field(16, description="requests that the API answers at once")
    api_max_body_bytes: PositiveInt = Field(65536, description="largest request body that the API reads")
    api_failed_logins_per_minute: int = Field(
        60, ge=0, description="wrong API keys that one address may send; then it has to wait; 0 for no limit"
    )
    api_requests_per_s: int = Field(
        200, ge=0, description="requests per second with one API key, ten seconds' worth at once; 0 for no limit"
    )
    operators_account: str | None = Field(
        None,
        min_length=1,
        description="account whose admin keys open the dashboard's page about the whole deployment; without it nobody's do",
    )
    metrics_host: str = Field("127.0.0.1", description="address that /metrics, /healthz and /readyz listen on")
    metrics_port: int = Field(
        9100, ge=0, le=65535, description="port of router's or dispatcher's /metrics; 0 takes a free one"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe line that is logged"
    )
    log_format: Literal["json", "text"] = Field("json", description="json for machines, text for people")

    @field_validator("database_url", "database_direct_url")
    @classmethod
    def _connection(cls, value: SecretStr | None) -> SecretStr | None:
        """Told here, without its text: libpq's own messages quote what they cannot read, and a password with it."""
        if value is not None and not is_connection(value.get_secret_value()):
            raise ValueError("this is no connection URL: write it as postgresql://user:password@host:5432/database")
        if value is not None:
            read_url(value.get_secret_value())
        return value

    @field_validator("retry_delays", mode="before")
    @classmethod
    def _durations(cls, value: Any) -> Any:
        return tuple(parse_duration_s(part) for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("retry_delays")
    @classmethod
    def _positive(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or any(delay <= 0 for delay in value):
            raise ValueError("name at least one delay, each longer than 0")
        return value

    @field_validator("secret_keys", "topic_config_left_out", mode="before")
    @classmethod
    def _keys(cls, value: Any) -> Any:
        return split_list(value)

    @field_validator("secret_keys")
    @classmethod
    def _key_lengths(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for key in value:
            _decode_key(key)
        return value

    @model_validator(mode="after")
    def _agree(self) -> Self:
        """Refuse settings that contradict each other (svix#2181 is what happens otherwise)."""
        for holds, message in (*self._times_agree(), *self._bounds_agree()):
            if not holds:
                raise ValueError(message)
        return self

    def _times_agree(self) -> Iterator[tuple[bool, str]]:
        yield (
            self.drain_timeout_s > self.delivery_timeout_s,
            "GO2HOOKS_DRAIN_TIMEOUT_S must exceed GO2HOOKS_DELIVERY_TIMEOUT_S, or a drain cuts attempts short",
        )
        yield (
            self.revoke_timeout_s > self.delivery_timeout_s,
            "GO2HOOKS_REVOKE_TIMEOUT_S must exceed GO2HOOKS_DELIVERY_TIMEOUT_S, or a rebalance sends twice",
        )
        yield (
            self.drain_timeout_s >= self.revoke_timeout_s,
            "GO2HOOKS_DRAIN_TIMEOUT_S must not be below GO2HOOKS_REVOKE_TIMEOUT_S, for which a drain may have to wait",
        )
        yield (
            self.revoke_timeout_s <= MAX_POLL_INTERVAL_S - _POLL_MARGIN_S,
            (
                f"GO2HOOKS_REVOKE_TIMEOUT_S must not exceed {MAX_POLL_INTERVAL_S - _POLL_MARGIN_S:g} s: a consumer that has "
                f"not polled for {MAX_POLL_INTERVAL_S:g} s is thrown out of its group"
            ),
        )
        yield (
            self.kafka_session_timeout_ms <= MAX_POLL_INTERVAL_S * 1000,
            f"GO2HOOKS_KAFKA_SESSION_TIMEOUT_MS must not exceed {MAX_POLL_INTERVAL_S * 1000:g}, the poll interval",
        )

    def _bounds_agree(self) -> Iterator[tuple[bool, str]]:
        yield (
            sum(self.retry_delays) * 2 <= self.log_retention_days * 86400,
            "GO2HOOKS_LOG_RETENTION_DAYS must be at least twice the span of GO2HOOKS_RETRY_DELAYS, or waiting retries expire",
        )
        yield (
            self.attempts_retention_days >= self.log_retention_days,
            (
                "GO2HOOKS_ATTEMPTS_RETENTION_DAYS must not be below GO2HOOKS_LOG_RETENTION_DAYS: by the records it is known "
                "what Kafka brings a second time"
            ),
        )
        yield (
            self.window_deliveries >= self.max_sends,
            "GO2HOOKS_WINDOW_DELIVERIES must not be below GO2HOOKS_MAX_SENDS, which could never be reached",
        )
        yield (
            self.response_excerpt_bytes <= self.response_body_limit_bytes,
            "GO2HOOKS_RESPONSE_EXCERPT_BYTES must not exceed GO2HOOKS_RESPONSE_BODY_LIMIT_BYTES: more is not read",
        )
        yield (
            self.record_batch_ms / 1000 < self.drain_timeout_s - self.delivery_timeout_s,
            (
                "GO2HOOKS_RECORD_BATCH_MS must fit between GO2HOOKS_DELIVERY_TIMEOUT_S and GO2HOOKS_DRAIN_TIMEOUT_S, "
                "or a drain ends before the last attempts are recorded"
            ),
        )

    def direct_url(self) -> str:
        """Where no pooler stands in between, if there is such a way."""
        return (self.database_direct_url or self.database_url).get_secret_value()

    @property
    def window_unit_bytes(self) -> int:
        """What a delivery may have to count as one in the windows; a larger one counts as several."""
        return max(1, self.window_mib * 2**20 // self.window_deliveries)

    def encryption_keys(self) -> tuple[bytes, ...]:
        """The raw 32-byte keys, first one first. Raises SettingsError when none is set."""
        if not self.secret_keys:
            raise SettingsError(
                "GO2HOOKS_SECRET_KEYS is not set: it encrypts webhook secrets. "
                "Make a key with: python -c 'import base64,os; print(base64.b64encode(os.urandom(32)).decode())'"
            )
        return tuple(_decode_key(key) for key in self.secret_keys)


def _decode_key(key: SecretStr) -> bytes:
    try:
        raw = base64.b64decode(key.get_secret_value(), validate=True)
    except binascii.Error:
        raise ValueError("a key is not base64") from None
    if len(raw) != 32:  # noqa: PLR2004  # AES-256
        raise ValueError("a key must be base64 of exactly 32 bytes")
    return raw


def load_settings(**overrides: Any) -> Settings:
    """Read the environment once. Raises SettingsError with one line per variable at fault, values left out."""
    return _load(Settings, overrides)


def load_kafka_settings(**overrides: Any) -> KafkaSettings:
    """What a producer needs, of the same environment. Raises SettingsError as `load_settings` does."""
    return _load(KafkaSettings, overrides)


def _load(group: type[S], overrides: dict[str, Any]) -> S:
    try:
        return group(**overrides)
    except ValidationError as error:
        lines = [f"{_named(fault['loc'])}: {fault['msg']}" for fault in error.errors(include_input=False)]
        raise SettingsError("\n".join(lines)) from None


def _named(location: tuple[int | str, ...]) -> str:
    return variable(str(location[0])) if location else "settings"
