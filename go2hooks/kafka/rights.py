"""The rights that each service needs in Kafka, and no others. They are printed as ACLs, and checked before a service
starts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from go2hooks.core.domain.event import EventType
from go2hooks.kafka.client import GroupNames
from go2hooks.kafka.topics import TopicNames
from go2hooks.settings import Settings


class Principal(StrEnum):
    """Who needs rights of its own."""

    PRODUCER = "producer"
    ROUTER = "router"
    REPLAYER = "replayer"
    DISPATCHER = "dispatcher"
    API = "api"
    OPERATOR = "operator"  #: `topics`, `doctor`, `dead`, `reconcile`


class AclOperation(StrEnum):
    """Kafka's names. READ and WRITE imply DESCRIBE."""

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
class Acl:
    """One operation on one resource, or with `is_prefix` on all resources whose names begin with this name."""

    service: Principal
    resource: Resource
    name: str
    operation: AclOperation
    is_prefix: bool = False


def rights(settings: Settings, service: Principal) -> list[Acl]:
    """The rights that the service needs."""
    found = []
    for resource, name, *operations in _needs(settings, service):
        is_prefix = name.endswith("*")
        plain = name.removesuffix("*")
        found += [Acl(service, resource, plain, operation, is_prefix) for operation in operations]
    return found


_Need = tuple[Resource, str, *tuple[AclOperation, ...]]


def _needs(settings: Settings, service: Principal) -> Iterator[_Need]:
    topics, groups = TopicNames(settings.kafka_prefix), GroupNames(settings.kafka_prefix)
    read, write = AclOperation.READ, AclOperation.WRITE
    match service:
        case Principal.PRODUCER:
            yield from (("topic", topic, write) for topic in topics.events)
        case Principal.ROUTER:
            yield from _ownership(settings)
            yield from (("topic", topic, read) for topic in topics.events)
            yield from (("topic", topic, write) for topic in (topics.deliveries, topics.overflow, topics.events_dead))
            yield "group", groups.router, read
        case Principal.REPLAYER:
            yield from _ownership(settings)
            yield from (("topic", topic, read) for topic in topics.events)
            yield "topic", topics.deliveries, read, write
            yield from (("topic", topic, read) for topic in (topics.overflow, *topics.tiers(settings.retry_delays)))
            yield from (("group", group, AclOperation.DESCRIBE) for group in (groups.dispatcher, groups.overflow))
        case Principal.DISPATCHER:
            yield from _ownership(settings)
            yield "topic", topics.deliveries, read, write  # of webhooks with a limit of their own
            yield from (("topic", topic, read, write) for topic in topics.tiers(settings.retry_delays))
            yield "topic", topics.overflow, read, write
            yield from (
                ("topic", topic, write)
                for topic in (topics.deliveries_dead, topics.of_event[EventType.WEBHOOK_DISABLED])
            )
            yield from (("group", group, read) for group in (groups.dispatcher, groups.retry, groups.overflow))
        case Principal.API:
            yield from _ownership(settings)
            yield "topic", topics.deliveries, read, write
            yield from (("topic", topic, read) for topic in (topics.overflow, *topics.tiers(settings.retry_delays)))
            if settings.operators_account is None:  # how much a replay would read
                yield from (("topic", topic, AclOperation.DESCRIBE) for topic in topics.events)
            else:  # its page shows what waits, and sends dead letters back
                yield from (("topic", topic, read, write) for topic in topics.events)
                yield from (("topic", topic, read, write) for topic in (topics.events_dead, topics.deliveries_dead))
                yield from (("group", group, AclOperation.DESCRIBE) for group in groups.of_services)
        case Principal.OPERATOR:
            every = [
                operation for operation in AclOperation if operation != AclOperation.DESCRIBE
            ]  # which READ implies
            yield "topic", f"{settings.kafka_prefix}.*", *every
            yield "group", f"{settings.kafka_prefix}hooks.*", AclOperation.DESCRIBE
            yield "cluster", CLUSTER, AclOperation.DESCRIBE, AclOperation.DESCRIBE_CONFIGS


def _ownership(settings: Settings) -> Iterator[_Need]:
    """To read who owns the topics, and to claim them. The reader joins no group, but librdkafka looks its group's name
    up.
    """
    yield "topic", TopicNames(settings.kafka_prefix).deployment, AclOperation.READ, AclOperation.WRITE
    yield "group", GroupNames(settings.kafka_prefix).reader, AclOperation.DESCRIBE


def as_commands(wanted: list[Acl], principal: str, bootstrap: str) -> Iterator[str]:
    """`kafka-acls` commands, one per resource."""
    by_resource: dict[tuple[Resource, str, bool], list[AclOperation]] = {}
    for right in wanted:
        by_resource.setdefault((right.resource, right.name, right.is_prefix), []).append(right.operation)
    for (resource, name, is_prefix), operations in by_resource.items():
        allowed = " ".join(f"--operation {''.join(map(str.capitalize, o.split('_')))}" for o in operations)
        which = "--cluster" if resource == "cluster" else f"--{resource} '{name}'"
        pattern = " --resource-pattern-type prefixed" if is_prefix else ""
        yield (
            f"kafka-acls --bootstrap-server {bootstrap} --add --allow-principal '{principal}' {allowed} {which}{pattern}"
        )
