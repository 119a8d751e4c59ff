"""Checks before a service starts that Kafka has the topics that it needs, and lets it read and write them.

Without this check, a dispatcher makes an attempt, cannot write the retry because the topic is missing or forbidden,
ends, and makes the attempt again after its restart, without end. A service that is not ready does no harm.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from go2hooks.core.errors import UnavailableError
from go2hooks.kafka.admin import admin_client, unavailable
from go2hooks.kafka.deployment import own
from go2hooks.kafka.rights import Acl, Principal, rights
from go2hooks.settings import Settings

log = structlog.get_logger(__name__)

_TIMEOUT_S: Final = 5.0
_KEPT_S: Final = 60.0  # never reached: a request that librdkafka gives up itself may end the process, see standstill.py
_AGAIN_S: Final = 1.0
_REACH_S: Final = 2.0
_NO_COORDINATOR: Final = frozenset(
    (KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.NOT_COORDINATOR)
)
_REMEDY: Final = "see: go2hooks topics acls"


def wait_until_usable(
    settings: Settings, service: Principal, deployment: str, pause: Callable[[float], bool]
) -> frozenset[str] | None:
    """Block until nothing is missing and this deployment owns the topics. Logs what is wrong, whenever that changes.

    `pause` waits so many seconds, and returns whether to give up. Returns None then; otherwise the deployments whose
    deliveries may lie there: this one, and those that it replaced.
    """
    said: list[str] = []
    while True:
        faults = find_faults(settings, service)
        try:
            if not faults:
                return own(settings, deployment)
        except UnavailableError as error:
            faults = [str(error)]
        if faults != said:
            log.error("kafka cannot be used yet", service=str(service), missing=faults)
            said = faults
        if pause(_AGAIN_S):
            return None


def find_faults(settings: Settings, service: Principal) -> list[str]:
    """What is missing, with the remedy, in one sentence each. Blocks up to ten seconds."""
    client = admin_client(settings)
    wanted = rights(settings, service)
    try:
        client.list_topics(timeout=_REACH_S)
        return list(_topic_faults(client, wanted)) or list(_group_faults(client, wanted))
    except KafkaException as error:
        return [str(unavailable(error, settings))]


def _topic_faults(client: AdminClient, wanted: list[Acl]) -> Iterator[str]:
    names = list(dict.fromkeys(right.name for right in wanted if right.resource == "topic" and not right.is_prefix))
    asked = client.describe_topics(
        TopicCollection(names), include_authorized_operations=True, request_timeout=_TIMEOUT_S
    )
    for name in names:
        operations = {right.operation.value for right in wanted if right.name == name}
        try:
            allowed = asked[name].result(_TIMEOUT_S).authorized_operations
        except KafkaException as error:
            yield _explain_topic(error.args[0], name, operations)
        except TimeoutError:
            yield f"Kafka does not describe topic {name} within {_TIMEOUT_S:g} s"
        else:
            missing = operations - _names(allowed, operations)
            if missing:
                yield f"no right to {_listed(missing)} topic {name}: {_REMEDY}"


def _group_faults(client: AdminClient, wanted: list[Acl]) -> Iterator[str]:
    for right in wanted:
        if right.resource != "group" or right.is_prefix:
            continue
        group, lacking = right.name, f"no right to {right.operation} group {right.name}: {_REMEDY}"
        asked = client.describe_consumer_groups([group], include_authorized_operations=True, request_timeout=_KEPT_S)
        try:
            allowed = asked[group].result(_TIMEOUT_S).authorized_operations
        except KafkaException as error:
            if error.args[0].code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                yield lacking
            elif error.args[0].code() in _NO_COORDINATOR:
                yield f"Kafka does not say yet who coordinates group {group}"
            elif error.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
                raise
        except TimeoutError:
            yield f"Kafka does not say who coordinates group {group}"
        else:
            if right.operation.value not in _names(allowed, {right.operation.value}):
                yield lacking


def _explain_topic(error: KafkaError, name: str, operations: set[str]) -> str:
    match error.code():
        case KafkaError.UNKNOWN_TOPIC_OR_PART:
            return f"topic {name} is missing: run go2hooks topics"
        case KafkaError.TOPIC_AUTHORIZATION_FAILED:
            return f"no right to {_listed(operations)} topic {name} (or it is missing): {_REMEDY}"
        case _:
            raise KafkaException(error)


def _names(allowed: list[Any] | None, wanted: set[str]) -> set[str]:
    """The operations that Kafka lists as allowed. A broker without an authorizer may list none: then all are."""
    return wanted if not allowed else {operation.name for operation in allowed}


def _listed(operations: set[str]) -> str:
    return " and ".join(sorted(operations))
