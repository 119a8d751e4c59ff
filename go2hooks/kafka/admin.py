"""Creates and reconciles topics. Never shrinks or deletes one."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from go2hooks.core.errors import UnavailableError
from go2hooks.kafka.client import connection_config
from go2hooks.kafka.diagnosis import explain
from go2hooks.kafka.topics import Topic, TopicNames, all_topics, is_enough
from go2hooks.settings import Settings

log = structlog.get_logger(__name__)
_TIMEOUT_S: Final = 30.0  # for each step
#: With so many replicas, a write may need two acknowledgements while one broker is away.
SAFE_REPLICATION: Final = 3


@dataclass(slots=True)
class TopicChanges:
    """What `ensure_topics` did, by topic name."""

    created: list[str] = field(default_factory=list)
    grown: list[str] = field(default_factory=list)
    configured: list[str] = field(default_factory=list)


def admin_client(settings: Settings) -> AdminClient:
    quiet = {"socket.connection.setup.timeout.ms": 5000, "log_level": 0}  # errors are raised
    return AdminClient(connection_config(settings, "admin") | quiet)


def unavailable(error: KafkaException, settings: Settings) -> UnavailableError:
    """Says what Kafka refused, or why it does not answer: see `diagnosis.explain`. Blocks up to ten seconds."""
    return UnavailableError(explain(error, connection_config(settings, "admin")))


def wanted_topics(settings: Settings) -> list[Topic]:
    """The topics that `ensure_topics` makes sure of. With three replicas or more, a write needs two of them."""
    names = TopicNames(settings.kafka_prefix)
    topics = all_topics(names, settings.retry_delays, settings.topic_partitions, settings.log_retention_days)
    safe = {"min.insync.replicas": "2"} if settings.topic_replication >= SAFE_REPLICATION else {}
    return [replace(topic, config=_without(topic.config | safe, settings.topic_config_left_out)) for topic in topics]


def _without(config: dict[str, str], names: Iterable[str]) -> dict[str, str]:
    return {name: value for name, value in config.items() if name not in names}


def ensure_topics(settings: Settings) -> TopicChanges:
    """Create missing topics, add partitions, set our configs. Blocks up to 30 s for each step.

    Raises UnavailableError when Kafka does not answer.
    """
    client = admin_client(settings)
    topics = wanted_topics(settings)
    changes = TopicChanges()
    try:
        existing = client.list_topics(timeout=_TIMEOUT_S).topics
        _create(client, [t for t in topics if t.name not in existing], settings, changes)
        for topic in topics:
            if topic.name in existing:
                _grow(client, topic, len(existing[topic.name].partitions), changes)
                _configure(client, topic, changes)
    except KafkaException as error:
        raise unavailable(error, settings) from error
    return changes


def find_differences(settings: Settings) -> list[str]:
    """What `ensure_topics` would change, one line each. Changes nothing. Raises UnavailableError."""
    client = admin_client(settings)
    try:
        existing = client.list_topics(timeout=_TIMEOUT_S).topics
        return [line for topic in wanted_topics(settings) for line in _differences(client, topic, existing)]
    except KafkaException as error:
        raise unavailable(error, settings) from error


def _differences(client: AdminClient, topic: Topic, existing: Mapping[str, Any]) -> Iterator[str]:
    if topic.name not in existing:
        yield f"{topic.name} is missing"
        return
    partitions = len(existing[topic.name].partitions)
    if partitions < topic.partitions:
        yield f"{topic.name} has {partitions} partitions, {topic.partitions} are wanted"
    for key, value in _differing(client, topic).items():
        yield f"{topic.name} has {key}={value}, {topic.config[key]} is wanted"


def _differing(client: AdminClient, topic: Topic) -> dict[str, str | None]:
    """The current values that differ from the wanted ones. A config that a broker does not list cannot be set there."""
    resource = ConfigResource(ResourceType.TOPIC, topic.name)
    told = client.describe_configs([resource])[resource].result(_TIMEOUT_S)
    actual = {key: told[key].value for key in topic.config if key in told}
    return {key: value for key, value in actual.items() if not is_enough(key, value, topic.config[key])}


def as_commands(settings: Settings) -> Iterator[str]:
    """`kafka-topics` commands that create every topic as wanted, for operators who do not let us do it."""
    for topic in wanted_topics(settings):
        configs = " ".join(f"--config {key}={value}" for key, value in topic.config.items())
        replicas = f" --replication-factor {settings.topic_replication}" if settings.topic_replication > 0 else ""
        yield (
            f"kafka-topics --bootstrap-server {settings.kafka_bootstrap_servers} --create --if-not-exists "
            f"--topic {topic.name} --partitions {topic.partitions}{replicas} {configs}"
        )


def _create(client: AdminClient, missing: list[Topic], settings: Settings, changes: TopicChanges) -> None:
    if not missing:
        return
    new = [
        NewTopic(t.name, num_partitions=t.partitions, replication_factor=settings.topic_replication, config=t.config)
        for t in missing
    ]
    for name, future in client.create_topics(new, operation_timeout=_TIMEOUT_S).items():
        try:
            future.result(_TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":  # another process was quicker
                raise
        else:
            changes.created.append(name)


def _grow(client: AdminClient, topic: Topic, partitions: int, changes: TopicChanges) -> None:
    if partitions < topic.partitions:
        client.create_partitions([NewPartitions(topic.name, topic.partitions)])[topic.name].result(_TIMEOUT_S)
        changes.grown.append(topic.name)


def _configure(client: AdminClient, topic: Topic, changes: TopicChanges) -> None:
    differing = _differing(client, topic)
    if differing:
        entries = [
            ConfigEntry(key, topic.config[key], incremental_operation=AlterConfigOpType.SET) for key in differing
        ]
        update = ConfigResource(ResourceType.TOPIC, topic.name, incremental_configs=entries)
        client.incremental_alter_configs([update])[update].result(_TIMEOUT_S)
        changes.configured.append(topic.name)
