"""Every setting: one `GO2HOOKS_*` variable each, units in the name, validated at start, listed by `go2hooks config`.

Each group is a module. A rule about settings of one group is in the group; a rule between groups is in `Settings`.
"""

from typing import Any, Self, TypeVar

from pydantic import ValidationError, model_validator

from go2hooks.core.errors import SettingsError
from go2hooks.settings.api import ApiSettings
from go2hooks.settings.consumers import MAX_POLL_INTERVAL_S, ConsumerSettings
from go2hooks.settings.database import DatabaseSettings
from go2hooks.settings.delivery import DeliverySettings, parse_duration_s
from go2hooks.settings.dispatcher import DispatcherSettings
from go2hooks.settings.environment import Environment, variable
from go2hooks.settings.kafka import KafkaSettings
from go2hooks.settings.process import ProcessSettings
from go2hooks.settings.records import RecordSettings
from go2hooks.settings.router import RouterSettings
from go2hooks.settings.targets import TargetSettings
from go2hooks.settings.topics import TopicSettings

__all__ = [
    "MAX_POLL_INTERVAL_S",
    "KafkaSettings",
    "Settings",
    "load_kafka_settings",
    "load_settings",
    "parse_duration_s",
]

S = TypeVar("S", bound=Environment)


class Settings(
    ApiSettings,  # pydantic lists the fields of the last base first
    RouterSettings,
    RecordSettings,
    DispatcherSettings,
    TargetSettings,
    DeliverySettings,
    TopicSettings,
    ConsumerSettings,
    KafkaSettings,
    DatabaseSettings,
    ProcessSettings,
):
    """What every service reads. Frozen; the environment is read once, at start."""

    @model_validator(mode="after")
    def _groups_agree(self) -> Self:
        """Refuse settings that contradict each other (svix#2181 is what happens otherwise)."""
        rules = (
            (
                self.drain_timeout_s > self.delivery_timeout_s,
                "GO2HOOKS_DRAIN_TIMEOUT_S must exceed GO2HOOKS_DELIVERY_TIMEOUT_S, or a drain cuts attempts short",
            ),
            (
                self.revoke_timeout_s > self.delivery_timeout_s,
                "GO2HOOKS_REVOKE_TIMEOUT_S must exceed GO2HOOKS_DELIVERY_TIMEOUT_S, or a rebalance sends twice",
            ),
            (
                self.drain_timeout_s >= self.revoke_timeout_s,
                "GO2HOOKS_DRAIN_TIMEOUT_S must not be below GO2HOOKS_REVOKE_TIMEOUT_S, for which a drain may have to wait",
            ),
            (
                sum(self.retry_delays) * 2 <= self.log_retention_days * 86400,
                "GO2HOOKS_LOG_RETENTION_DAYS must be at least twice the span of GO2HOOKS_RETRY_DELAYS, or waiting retries expire",
            ),
            (
                self.attempts_retention_days >= self.log_retention_days,
                (
                    "GO2HOOKS_ATTEMPTS_RETENTION_DAYS must not be below GO2HOOKS_LOG_RETENTION_DAYS: by the records it is known "
                    "what Kafka brings a second time"
                ),
            ),
            (
                self.record_batch_ms / 1000 < self.drain_timeout_s - self.delivery_timeout_s,
                (
                    "GO2HOOKS_RECORD_BATCH_MS must fit between GO2HOOKS_DELIVERY_TIMEOUT_S and GO2HOOKS_DRAIN_TIMEOUT_S, "
                    "or a drain ends before the last attempts are recorded"
                ),
            ),
        )
        for holds, message in rules:
            if not holds:
                raise ValueError(message)
        return self


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
        faults = error.errors(include_input=False)
        named = [(variable(str(fault["loc"][0])) if fault["loc"] else "settings", fault["msg"]) for fault in faults]
        raise SettingsError("\n".join(f"{name}: {message}" for name, message in named)) from None
