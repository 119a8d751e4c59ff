"""librdkafka's settings, in one place. Each line that differs from a default says why."""

import logging
import os
import re
import socket
import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from pydantic import SecretStr

from go2hooks import __version__
from go2hooks.build import BUILD
from go2hooks.core.errors import SettingsError
from go2hooks.kafka import codes
from go2hooks.kafka.topics import MAX_INTERNAL_MESSAGE_BYTES
from go2hooks.settings import MAX_POLL_INTERVAL_S, Settings, load_kafka_settings
from go2hooks.settings.environment import file_variable, variable
from go2hooks.settings.kafka import KafkaSettings, parse_properties

log = structlog.get_logger(__name__)


_OURS: Final = re.compile(r"hooks-[a-z]+-(?P<version>[^-]+)-(?P<build>compiled|plain)-")


class Running(NamedTuple):
    """What a client of ours runs, as its `client.id` tells."""

    version: str
    build: str  #: compiled, plain


def running(client_id: str) -> Running | None:
    """Reads the `client.id` that `connection_config` makes; None for one of an older version, or another product."""
    found = _OURS.search(client_id)
    return None if found is None else Running(found["version"], found["build"])


class GroupNames:
    """The names of one deployment's consumer groups."""

    def __init__(self, prefix: str) -> None:
        self.router: Final = f"{prefix}hooks.router"
        self.dispatcher: Final = f"{prefix}hooks.dispatcher"
        self.retry: Final = f"{prefix}hooks.dispatcher.retry"
        self.overflow: Final = f"{prefix}hooks.dispatcher.overflow"
        self.of_services: Final = (self.router, self.dispatcher, self.retry, self.overflow)
        self.reader: Final = f"{prefix}hooks.reader"  #: nobody joins it, but librdkafka requires a name


def connection_config(settings: KafkaSettings, role: str) -> dict[str, Any]:
    """What all our clients share: where the brokers are, how to log in, the `client.id`.

    Raises SettingsError when librdkafka refuses this configuration.
    """
    given = _security(settings) | parse_properties(settings.kafka_properties)
    _try_out(frozenset(given.items()))
    return {
        "bootstrap.servers": settings.kafka_bootstrap_servers,
        "client.id": f"{settings.kafka_prefix}hooks-{role}-{__version__}-{BUILD.kind}-{socket.gethostname()}",
        **given,
        "logger": logging.getLogger("librdkafka"),  # or it writes to stderr, past the masking of secrets
        # A broker that was away must be found again within a second, not after the default's ten.
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1000,
    }


def refusal(config: Mapping[str, Any]) -> KafkaException | None:
    """Why librdkafka refuses a configuration; None when it takes it. It alone knows all properties and their rules.

    Makes a client and drops it. The client connects to nothing, unless the configuration names a server.
    """
    try:
        Producer({**config, "log_level": 0})
    except KafkaException as error:
        return error
    return None


@lru_cache(maxsize=8)
def _try_out(given: frozenset[tuple[str, str]]) -> None:
    error = refusal(dict(given))
    if error is not None:
        said = error.args[0].str().removeprefix("Failed to create producer: ").removesuffix(".")
        raise SettingsError(
            f"librdkafka refuses its configuration: {said}. Check {variable('kafka_properties')} and GO2HOOKS_KAFKA_SSL_*."
        ) from error


def _security(settings: KafkaSettings) -> dict[str, str]:
    given = {
        "security.protocol": settings.kafka_security_protocol,
        "sasl.mechanism": settings.kafka_sasl_mechanism,
        "sasl.username": settings.kafka_sasl_username,
        "sasl.password": settings.kafka_sasl_password,
        "ssl.ca.location": settings.kafka_ssl_ca_file,
        "ssl.certificate.location": settings.kafka_ssl_certificate_file,
        "ssl.key.location": settings.kafka_ssl_key_file,
        "ssl.key.password": settings.kafka_ssl_key_password,
    }
    if settings.kafka_sasl_mechanism == "OAUTHBEARER":
        given["sasl.oauthbearer.method"] = "oidc"
    shown = {name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in given.items()}
    return {name: str(value) for name, value in shown.items() if value is not None}


def consumer_config(
    settings: Settings, group: str, *, prefetch_kib: int = 8192, batch_fetches: bool = False
) -> dict[str, Any]:
    """Settings of a consumer in `group` that stores its offsets by hand. `prefetch_kib` bounds what librdkafka holds.

    With `batch_fetches`, Kafka gathers messages for a tenth of a second before it answers a fetch: a broker's cost is
    per request, and messages of a retry tier or of the overflow can wait that long.

    It uses the classic group protocol, in which the client sets the session timeout: with `group.protocol=consumer` a
    broker with default settings keeps a dead member's partitions for 45 s.
    """
    return connection_config(settings, "consumer") | {
        "group.id": group,
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": settings.kafka_session_timeout_ms,
        "heartbeat.interval.ms": settings.kafka_session_timeout_ms // 3,
        "max.poll.interval.ms": round(MAX_POLL_INTERVAL_S * 1000),
        "enable.auto.commit": True,  # commits stored offsets only, and tries again when that fails
        "auto.commit.interval.ms": 500,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "fetch.queue.backoff.ms": 5,  # the default, a second, would show as latency after every full queue
        # A fetch names the partitions for which there is room. During a burst these may be only quiet ones, and the
        # others wait until the fetch is answered. Shorter waits would cost an idle broker more.
        "fetch.wait.max.ms": 100 if batch_fetches else 50,
        "fetch.min.bytes": 65_536 if batch_fetches else 1,
        # A little of each partition at a time: messages of a burst in one partition lie before all others in the
        # queue.
        "fetch.message.max.bytes": 65_536,
        "queued.min.messages": 1000,  # for all partitions together; the default is 100,000
        "queued.max.messages.kbytes": prefetch_kib,  # the default is 64 MiB
        "topic.metadata.refresh.interval.ms": 30_000,  # new tiers and partitions are seen within half a minute
    }


def producer_config(settings: Settings, *, linger_ms: int = 0) -> dict[str, Any]:
    """Settings of an internal producer: all replicas acknowledge, and it never gives up.

    With `linger_ms` 0 librdkafka still batches the messages that gather while requests are under way.

    `message.timeout.ms` 0 means no limit: the offsets behind waiting messages are not committed, so giving up gains
    nothing.

    Idempotence is off: with it, librdkafka's thread spins while five messages to a partition are unacknowledged and
    another waits (`rd_kafka_msgq_allow_wakeup_at` asks to be woken at once), which keeps a broker on the same machine
    from answering for tenths of a second. It is not needed: the readers of these topics recognise duplicates, and order
    by due time, not by offset.
    """
    return connection_config(settings, "producer") | {
        "acks": "all",
        "max.in.flight.requests.per.connection": 5,  # the default is a million: nothing would gather
        "message.max.bytes": MAX_INTERNAL_MESSAGE_BYTES,
        "linger.ms": linger_ms,
        "message.timeout.ms": 0,
        "queue.buffering.max.messages": 100_000,
        "queue.buffering.max.kbytes": 131_072,
        "partitioner": "murmur2_random",  # as the Java producer places keys
    }


def reporting_consumer(config: dict[str, Any]) -> Consumer:
    """A consumer that logs its errors and renews its login, whenever it is polled."""
    made: list[Consumer] = []

    def on_error(error: KafkaError) -> None:
        for consumer in made:
            report(error, consumer)

    made.append(Consumer(config | {"error_cb": on_error}))
    return made[0]


def report(error: KafkaError, client: Consumer | Producer) -> None:
    """Log an error that librdkafka reports about a client, and renew its login where that is the cause."""
    log.warning("kafka client reports", error=error.str(), fatal=error.fatal())
    renew_login(error, client)


def renew_login(error: KafkaError, client: Consumer | Producer | AdminClient) -> None:
    """When the login failed and the password is in a file, read the file again: so a password that was changed in Kafka
    and in the file takes effect without a restart.
    """
    if error.code() != codes.AUTHENTICATION or not os.environ.get(file_variable("kafka_sasl_password")):
        return
    try:
        fresh = load_kafka_settings()
    except SettingsError as unreadable:
        log.warning("the password was not read again", why=str(unreadable))
        return
    if fresh.kafka_sasl_username is not None and fresh.kafka_sasl_password is not None:
        login = fresh.kafka_sasl_username, fresh.kafka_sasl_password.get_secret_value()
        # In a thread: this runs within the client's poll, where its other methods may not be called.
        threading.Thread(target=client.set_sasl_credentials, args=login, daemon=True).start()
