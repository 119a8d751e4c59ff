"""The Kafka checks of `go2hooks doctor`. Each yields findings; one that cannot go on ends with a problem."""

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from go2hooks.cli.checks import SKEW_LIMIT_S, TIMEOUT_S, Finding

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient, ClusterMetadata

    from go2hooks.settings import Settings

_MAY_NOT: Final = "Run it with a login that has the operator's rights (go2hooks topics acls), or check a service's own with --service."
_REPLICAS: Final = 3
_IN_SYNC: Final = 2


def check_kafka(settings: "Settings", service: str | None = None) -> Iterator[Finding]:
    """Check connection, rights, topics, replication, session timeouts and clocks."""
    from confluent_kafka import KafkaException

    from go2hooks.core.errors import UnavailableError
    from go2hooks.kafka.admin import admin_client, unavailable

    servers = settings.kafka_bootstrap_servers
    client = admin_client(settings)
    try:
        metadata = client.list_topics(timeout=TIMEOUT_S)
        yield Finding("Kafka", f"{servers} answers: {len(metadata.brokers)} broker(s)")
        yield from _check_rights(settings, service)
        if service not in (None, "operator"):
            return  # a service's own login may not read the rest
        yield from _check_topics(settings)
        yield _check_sessions(settings, client, min(metadata.brokers))
        yield from _check_replicas(client, metadata, f"{settings.kafka_prefix}.")
        yield _check_broker_clock(settings)
    except (UnavailableError, KafkaException) as error:
        said = str(unavailable(error, settings) if isinstance(error, KafkaException) else error)
        yield Finding("Kafka", said, _MAY_NOT if "authorization failed" in said else "Look after its brokers.")


def check_owner(settings: "Settings") -> Iterator[Finding]:
    """Check that the topics belong to this database's deployment. No finding when a server does not answer."""
    import psycopg

    from go2hooks.core.errors import Go2HooksError
    from go2hooks.kafka.deployment import explain_foreign, read_claims
    from go2hooks.postgres.deployment import find_deployment
    from go2hooks.postgres.session import Session

    try:
        url = settings.database_url.get_secret_value()
        with Session.connect(url, name="doctor") as connection, connection.transaction():
            ours = find_deployment(connection)
        owner = read_claims(settings).owner
    except (psycopg.Error, Go2HooksError):
        return  # the checks of that server report it
    if owner in (None, ours):
        yield Finding("deployment", f"{ours}; the topics are {'its own' if owner else 'still unclaimed'}")
        return
    what, _, remedy = explain_foreign(settings, str(owner), ours).partition(": ")
    yield Finding("deployment", what, remedy[:1].upper() + remedy[1:])


def _check_topics(settings: "Settings") -> Iterator[Finding]:
    from go2hooks.kafka.admin import find_differences, wanted_topics

    remedy = "Run: go2hooks topics (go2hooks topics --print shows the commands for whoever may create topics)"
    wrong = [Finding("topics", line, remedy) for line in find_differences(settings)]
    yield from wrong or [
        Finding("topics", f"all {len(wanted_topics(settings))} are there, with partitions and retention")
    ]


def _check_rights(settings: "Settings", asked: str | None) -> Iterator[Finding]:
    """Check the rights of this login. Each service may have its own, and can ask only for its own rights."""
    from go2hooks.kafka.preflight import find_faults
    from go2hooks.kafka.rights import Principal

    if asked is not None:
        faults = find_faults(settings, Principal(asked))
        yield from (Finding("rights", fault, "Grant it: go2hooks topics acls prints the commands") for fault in faults)
        if not faults:
            yield Finding("rights", f"this login may do all that the {asked} does")
        return
    services = (Principal.ROUTER, Principal.REPLAYER, Principal.DISPATCHER, Principal.API)
    able = [str(service) for service in services if not find_faults(settings, service)]
    does = f"this login may do all that {', '.join(able) or 'none of the services'} does"
    more = (
        ""
        if len(able) == len(services)
        else "; to see what a service's own login lacks: go2hooks doctor --service NAME"
    )
    yield Finding("rights", does + more)


def _check_sessions(settings: "Settings", client: "AdminClient", broker: int) -> Finding:
    """Check that brokers accept our session timeout: otherwise no consumer can join."""
    from confluent_kafka.admin import ConfigResource, ResourceType

    resource = ConfigResource(ResourceType.BROKER, str(broker))
    config = client.describe_configs([resource])[resource].result(TIMEOUT_S)
    named = [config.get(f"group.{end}.session.timeout.ms") for end in ("min", "max")]
    ours = settings.kafka_session_timeout_ms
    if None in named:
        return Finding(
            "consumer groups", f"this broker does not tell which session timeouts it takes; ours is {ours} ms"
        )
    lowest, highest = (int(entry.value) for entry in named)
    detail = f"the broker takes session timeouts of {lowest} to {highest} ms; ours is {ours} ms"
    if lowest <= ours <= highest:
        return Finding("consumer groups", detail)
    remedy = "Set group.min.session.timeout.ms on the brokers, or GO2HOOKS_KAFKA_SESSION_TIMEOUT_MS here."
    return Finding("consumer groups", detail, remedy)


def _check_replicas(client: "AdminClient", metadata: "ClusterMetadata", prefix: str) -> Iterator[Finding]:
    """Check replication. With several brokers, losing any one of them must lose no message."""
    ours = {name: topic.partitions.values() for name, topic in metadata.topics.items() if name.startswith(prefix)}
    replicas = {name: min(len(partition.replicas) for partition in partitions) for name, partitions in ours.items()}
    if len(metadata.brokers) == 1 and max(replicas.values(), default=1) == 1:
        yield Finding("replication", "one broker: nothing is replicated, which is for development alone")
        return
    few = sorted(name for name, count in replicas.items() if count < _REPLICAS)
    lax = sorted(name for name, count in _in_sync_wanted(client, ours).items() if count < _IN_SYNC)
    behind = sorted(name for name, partitions in ours.items() if any(len(p.isrs) < len(p.replicas) for p in partitions))
    if few:
        remedy = "Reassign them to three brokers (kafka-reassign-partitions), and set GO2HOOKS_TOPIC_REPLICATION=3."
        yield Finding("replication", f"fewer than {_REPLICAS} replicas: {', '.join(few)}", remedy)
    if lax:
        remedy = "Run: GO2HOOKS_TOPIC_REPLICATION=3 go2hooks topics"
        yield Finding("replication", f"min.insync.replicas is below {_IN_SYNC}: {', '.join(lax)}", remedy)
    if behind:
        remedy = "Bring back the brokers that are away, and let them catch up."
        yield Finding("replication", f"replicas are not in sync: {', '.join(behind)}", remedy)
    if not few and not lax and not behind:
        detail = f"every topic has {_REPLICAS} replicas or more, all in sync; {_IN_SYNC} at least have to acknowledge"
        yield Finding("replication", detail)


def _in_sync_wanted(client: "AdminClient", topics: Iterable[str]) -> dict[str, int]:
    """`min.insync.replicas` of each topic, the brokers' default included."""
    from confluent_kafka.admin import ConfigResource, ResourceType

    resources = {name: ConfigResource(ResourceType.TOPIC, name) for name in topics}
    configs = client.describe_configs(list(resources.values())) if resources else {}
    found = {name: configs[r].result(TIMEOUT_S).get("min.insync.replicas") for name, r in resources.items()}
    return {name: int(entry.value) for name, entry in found.items() if entry is not None}  # not every broker tells


def _check_broker_clock(settings: "Settings") -> Finding:
    """Check that no broker's clock is ahead of ours: brokers date events. One that is behind cannot be seen without writing."""
    from go2hooks.kafka.reading import LogReader
    from go2hooks.kafka.topics import TopicNames

    with LogReader(settings) as reader:
        keys = reader.partitions(TopicNames(settings.kafka_prefix).events)
        now_ms = time.time_ns() // 1_000_000
        ahead = reader.offsets_at(keys, now_ms + round(SKEW_LIMIT_S * 1000))
        ends = reader.ends(keys)
    count = sum(max(0, ends[key] - ahead[key]) for key in keys)
    if count:
        detail = f"{count} events are dated more than {SKEW_LIMIT_S:g} s ahead of this machine's clock"
        return Finding("clock", detail, "Let NTP set the clocks of brokers and services.")
    return Finding("clock", "no event is dated ahead of this machine's clock")
