"""What each service has to be allowed in Kafka, and nothing else. Printed as ACLs, and checked before a service starts."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from go2hooks.core.domain.event import EventType
from go2hooks.kafka.client import GroupNames
from go2hooks.kafka.topics import TopicNames
from go2hooks.settings import Settings


class Service(StrEnum):
    """Who needs rights of its own."""

    PRODUCER = "producer"
    ROUTER = "router"
    REPLAYER = "replayer"
    DISPATCHER = "dispatcher"
    API = "api"
    OPERATOR = "operator"  #: `topics`, `doctor`, `dead`, `reconcile`


class Operation(StrEnum):
    """Kafka's names; READ and WRITE imply DESCRIBE."""

    READ = "READ"
    WRITE = "WRITE"
    DESCRIBE = "DESCRIBE"
    CREATE = "CREATE"
    ALTER = "ALTER"
    DESCRIBE_CONFIGS = "DESCRIBE_CONFIGS"
    ALTER_CONFIGS = "ALTER_CONFIGS"


Resource = Literal["topic", "group", "cluster"]
CLUSTER: Final = "kafka-cluster"


@dataclass(frozen=True, slots=True)
class Right:
    """One operation on one resource; with `is_prefix`, on all whose names begin so."""

    service: Service
    resource: Resource
    name: str
    operation: Operation
    is_prefix: bool = False


def rights(settings: Settings, service: Service) -> list[Right]:
    """What the service needs."""
    found = []
    for resource, name, *operations in _needs(settings, service):
        is_prefix = name.endswith("*")
        plain = name.removesuffix("*")
        found += [Right(service, resource, plain, operation, is_prefix) for operation in operations]
    return found


_Need = tuple[Resource, str, *tuple[Operation, ...]]


def _needs(settings: Settings, service: Service) -> Iterator[_Need]:
    topics, groups = TopicNames(settings.kafka_prefix), GroupNames(settings.kafka_prefix)
    read, write = Operation.READ, Operation.WRITE
    match service:
        case Service.PRODUCER:
            yield from (("topic", topic, write) for topic in topics.events)
        case Service.ROUTER:
            yield from _ownership(settings)
            yield from (("topic", topic, read) for topic in topics.events)
            yield from (("topic", topic, write) for topic in (topics.deliveries, topics.overflow, topics.events_dead))
            yield "group", groups.router, read
        case Service.REPLAYER:
            yield from _ownership(settings)
            yield from (("topic", topic, read) for topic in topics.events)
            yield "topic", topics.deliveries, read, write
            yield from (("topic", topic, read) for topic in (topics.overflow, *topics.tiers(settings.retry_delays)))
            yield from (("group", group, Operation.DESCRIBE) for group in (groups.dispatcher, groups.overflow))
        case Service.DISPATCHER:
            yield from _ownership(settings)
            yield "topic", topics.deliveries, read, write  # of webhooks with a limit of their own
            yield from (("topic", topic, read, write) for topic in topics.tiers(settings.retry_delays))
            yield "topic", topics.overflow, read, write
            yield from (
                ("topic", topic, write)
                for topic in (topics.deliveries_dead, topics.of_event[EventType.WEBHOOK_DISABLED])
            )
            yield from (("group", group, read) for group in (groups.dispatcher, groups.retry, groups.overflow))
        case Service.API:
            yield from _ownership(settings)
            yield "topic", topics.deliveries, read, write
            yield from (("topic", topic, read) for topic in (topics.overflow, *topics.tiers(settings.retry_delays)))
            if settings.operators_account is None:  # how much a replay would read
                yield from (("topic", topic, Operation.DESCRIBE) for topic in topics.events)
            else:  # its page shows what waits, and sends dead letters back
                yield from (("topic", topic, read, write) for topic in topics.events)
                yield from (("topic", topic, read, write) for topic in (topics.events_dead, topics.deliveries_dead))
                yield from (("group", group, Operation.DESCRIBE) for group in groups.of_services)
        case Service.OPERATOR:
            every = (
                read,
                write,
                Operation.CREATE,
                Operation.ALTER,
                Operation.DESCRIBE_CONFIGS,
                Operation.ALTER_CONFIGS,
            )
            yield "topic", f"{settings.kafka_prefix}.*", *every
            yield "group", f"{settings.kafka_prefix}hooks.*", Operation.DESCRIBE
            yield "cluster", CLUSTER, Operation.DESCRIBE, Operation.DESCRIBE_CONFIGS


def _ownership(settings: Settings) -> Iterator[_Need]:
    """To read whose the topics are, and to claim them. The reader joins no group, but its name is looked up."""
    yield "topic", TopicNames(settings.kafka_prefix).deployment, Operation.READ, Operation.WRITE
    yield "group", GroupNames(settings.kafka_prefix).reader, Operation.DESCRIBE


def as_commands(wanted: list[Right], principal: str, bootstrap: str) -> Iterator[str]:
    """`kafka-acls` commands, one per resource."""
    by_resource: dict[tuple[Resource, str, bool], list[Operation]] = {}
    for right in wanted:
        by_resource.setdefault((right.resource, right.name, right.is_prefix), []).append(right.operation)
    for (resource, name, is_prefix), operations in by_resource.items():
        allowed = " ".join(f"--operation {''.join(map(str.capitalize, o.split('_')))}" for o in operations)
        which = "--cluster" if resource == "cluster" else f"--{resource} '{name}'"
        pattern = " --resource-pattern-type prefixed" if is_prefix else ""
        yield (
            f"kafka-acls --bootstrap-server {bootstrap} --add --allow-principal '{principal}' {allowed} {which}{pattern}"
        )
