"""What `go2hooks doctor` looks at. Each check yields findings; one that cannot go on ends with a problem."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from go2hooks.core.errors import SealError, SettingsError, UnavailableError

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient
    from psycopg import Connection

    from go2hooks.settings import Settings

_TIMEOUT_S: Final = 5.0
_SKEW_LIMIT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; with a remedy it is a problem."""

    subject: str
    detail: str
    remedy: str = ""


def check_kafka(settings: "Settings") -> Iterator[Finding]:
    """The broker answers, its topics are right, and it lets our consumers have their session timeout."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    servers = settings.kafka_bootstrap_servers
    client = AdminClient({"bootstrap.servers": servers, "log_level": 0})
    try:
        metadata = client.list_topics(timeout=_TIMEOUT_S)
        yield Finding("Kafka", f"{servers} answers: {len(metadata.brokers)} broker(s)")
        partitions = {name: len(topic.partitions) for name, topic in metadata.topics.items()}
        yield from _check_topics(settings, client, partitions)
        yield _check_sessions(settings, client, min(metadata.brokers))
    except KafkaException as error:
        remedy = "Start Kafka, or correct GO2HOOKS_KAFKA_BOOTSTRAP_SERVERS."
        yield Finding("Kafka", f"{servers} does not answer: {error.args[0].str()}", remedy)


def _check_topics(settings: "Settings", client: "AdminClient", partitions: dict[str, int]) -> Iterator[Finding]:
    from confluent_kafka.admin import ConfigResource, ResourceType

    from go2hooks.kafka.admin import wanted_topics

    remedy = "Run: go2hooks topics"
    wanted = wanted_topics(settings)
    present = [topic for topic in wanted if topic.name in partitions]
    resources = {topic.name: ConfigResource(ResourceType.TOPIC, topic.name) for topic in present}
    configs = client.describe_configs(list(resources.values())) if resources else {}
    wrong = [Finding("topics", f"{topic.name} is missing", remedy) for topic in wanted if topic not in present]
    for topic in present:
        if partitions[topic.name] < topic.partitions:
            detail = f"{topic.name} has {partitions[topic.name]} partitions, {topic.partitions} are wanted"
            wrong.append(Finding("topics", detail, remedy))
        actual = configs[resources[topic.name]].result(_TIMEOUT_S)
        for key, value in topic.config.items():
            if not _is_enough(key, actual[key].value, value):
                wrong.append(
                    Finding("topics", f"{topic.name} has {key}={actual[key].value}, {value} is wanted", remedy)
                )
    yield from wrong or [Finding("topics", f"all {len(wanted)} are there, with partitions and retention")]


def _is_enough(key: str, actual: str, wanted: str) -> bool:
    """Longer retention than wanted is fine; -1 keeps for ever."""
    if key == "retention.ms":
        return actual == "-1" or int(actual) >= int(wanted)
    return actual == wanted


def _check_sessions(settings: "Settings", client: "AdminClient", broker: int) -> Finding:
    """A broker that refuses our session timeout lets no consumer join at all."""
    from confluent_kafka.admin import ConfigResource, ResourceType

    resource = ConfigResource(ResourceType.BROKER, str(broker))
    config = client.describe_configs([resource])[resource].result(_TIMEOUT_S)
    lowest, highest = (int(config[f"group.{end}.session.timeout.ms"].value) for end in ("min", "max"))
    ours = settings.kafka_session_timeout_ms
    detail = f"the broker takes session timeouts of {lowest} to {highest} ms; ours is {ours} ms"
    if lowest <= ours <= highest:
        return Finding("consumer groups", detail)
    remedy = "Set group.min.session.timeout.ms on the brokers, or GO2HOOKS_KAFKA_SESSION_TIMEOUT_MS here."
    return Finding("consumer groups", detail, remedy)


def check_postgres(settings: "Settings") -> Iterator[Finding]:
    """The database answers, is migrated, its secrets open, and its clock agrees with ours."""
    import psycopg

    url = settings.database_url.get_secret_value()
    try:
        with psycopg.connect(url, connect_timeout=int(_TIMEOUT_S)) as connection:
            version = connection.info.server_version // 10000
            yield Finding("Postgres", f"{connection.info.host}:{connection.info.port} answers: version {version}")
            yield _check_clock(connection)
            migrations = _check_migrations(url)
            yield migrations
            if not migrations.remedy:
                yield _check_secrets(settings, connection)
    except psycopg.OperationalError as error:
        yield Finding(
            "Postgres", f"does not answer: {str(error).strip()}", "Start it, or correct GO2HOOKS_DATABASE_URL."
        )


def _check_clock(connection: "Connection[Any]") -> Finding:
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    there: datetime = row[0] if row else datetime.min.replace(tzinfo=UTC)
    skew_s = abs((there - datetime.now(UTC)).total_seconds())
    detail = f"differs from Postgres's by {skew_s:.2f} s"
    remedy = "" if skew_s <= _SKEW_LIMIT_S else "Let NTP set both clocks: retries are due and signatures dated by them."
    return Finding("clock", detail, remedy)


def _check_migrations(url: str) -> Finding:
    from go2hooks.postgres.migrate import pending_migrations

    try:
        pending = pending_migrations(url)
    except UnavailableError as error:
        return Finding("migrations", str(error), "Start Postgres, or correct GO2HOOKS_DATABASE_URL.")
    if pending:
        return Finding("migrations", f"not applied: {', '.join(pending)}", "Run: go2hooks migrate")
    return Finding("migrations", "all are applied")


def _check_secrets(settings: "Settings", connection: "Connection[Any]") -> Finding:
    from go2hooks.postgres.secrets import SecretBox

    try:
        box = SecretBox(settings.encryption_keys())
    except SettingsError as error:
        return Finding("secrets", str(error), "Set GO2HOOKS_SECRET_KEYS to the keys that the services use.")
    query = "SELECT id, sealed_secret FROM webhooks WHERE deleted_at IS NULL ORDER BY id"
    sealed = connection.execute(query).fetchall()
    shut = [webhook_id for webhook_id, secret in sealed if not _opens(box, secret, webhook_id)]
    if shut:
        detail = f"{len(shut)} of {len(sealed)} webhook secrets do not open, the first that of {shut[0]}"
        remedy = "Add the key that sealed them to GO2HOOKS_SECRET_KEYS, or rotate these webhooks' secrets."
        return Finding("secrets", detail, remedy)
    return Finding("secrets", f"all {len(sealed)} webhook secrets open")


def _opens(box: Any, sealed: bytes, webhook_id: str) -> bool:
    try:
        box.open(sealed, webhook_id)
    except SealError:
        return False
    return True
