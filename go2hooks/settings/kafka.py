"""How to connect to Kafka, and the prefix of topics and groups. Producers need no other settings."""

import re
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, FilePath, SecretStr, model_validator

from go2hooks.settings.environment import Environment, variable

_PREFIX: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")

#: librdkafka properties that may not be set by hand, and why.
_OWN_SETTING: Final = {
    "bootstrap.servers": "kafka_bootstrap_servers",
    "metadata.broker.list": "kafka_bootstrap_servers",
    "security.protocol": "kafka_security_protocol",
    "sasl.mechanism": "kafka_sasl_mechanism",
    "sasl.mechanisms": "kafka_sasl_mechanism",
    "sasl.username": "kafka_sasl_username",
    "sasl.password": "kafka_sasl_password",
    "ssl.ca.location": "kafka_ssl_ca_file",
    "ssl.certificate.location": "kafka_ssl_certificate_file",
    "ssl.key.location": "kafka_ssl_key_file",
    "ssl.key.password": "kafka_ssl_key_password",
    "session.timeout.ms": "kafka_session_timeout_ms",
    "group.id": "kafka_prefix",
    "client.id": "kafka_prefix",
}
_PROMISES: Final = {
    "acks": "a message counts as kept when every in-sync replica has it",
    "request.required.acks": "a message counts as kept when every in-sync replica has it",
    "auto.offset.reset": "a group that has committed nothing begins with the oldest event",
    "enable.auto.commit": "an offset is committed when what came of the message is kept, and not before",
    "enable.auto.offset.store": "an offset is committed when what came of the message is kept, and not before",
    "auto.commit.enable": "an offset is committed when what came of the message is kept, and not before",
    "enable.partition.eof": "consumers here do not expect such messages",
    "group.protocol": "rebalances are handled as the classic protocol has them",
    "group.remote.assignor": "rebalances are handled as the classic protocol has them",
    "partition.assignment.strategy": "partitions move one by one, cooperatively",
    "isolation.level": "what a producer has aborted must not be delivered",
    "message.timeout.ms": "how long a message is kept trying is decided per producer, and for ever inside",
    "delivery.timeout.ms": "how long a message is kept trying is decided per producer, and for ever inside",
    "message.max.bytes": "deliveries of a megabyte must fit",
    "max.poll.interval.ms": "other time limits are derived from it",
    "partitioner": "every producer must place an account's events in the same partition",
    "transactional.id": "nothing here is written in transactions",
    "enable.ssl.certificate.verification": "an unverified broker could be anybody",
    "plugin.library.paths": "no code is loaded by a setting",
    "log_level": "what clients report goes to our log",
}


def _topic_name(value: str) -> str:
    if not _PREFIX.fullmatch(value):
        raise ValueError("up to 64 letters, digits, dots, hyphens and underscores, as Kafka's topic names allow")
    return value


def _allowed(value: SecretStr | None) -> SecretStr | None:
    parse_properties(value)
    return value


class KafkaSettings(Environment):
    """Settings of every Kafka client, producers included."""

    kafka_bootstrap_servers: str = Field("localhost:9092", description="Kafka brokers, host:port, comma separated")
    kafka_prefix: Annotated[str, AfterValidator(_topic_name)] = Field(
        "go2", description="first part of the names of topics and groups: one per deployment on a cluster"
    )
    kafka_security_protocol: Annotated[
        Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"], BeforeValidator(str.lower)
    ] = Field("plaintext", description="how brokers are spoken to: plaintext, ssl, sasl_plaintext or sasl_ssl")
    kafka_sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None,
        BeforeValidator(lambda value: value and value.upper()),
    ] = Field(None, description="PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER, with a SASL security protocol")
    kafka_sasl_username: str | None = Field(None, description="user for PLAIN and SCRAM")
    kafka_sasl_password: SecretStr | None = Field(
        None, description="password for PLAIN and SCRAM; one in a file is read again when brokers refuse it"
    )
    kafka_ssl_ca_file: FilePath | None = Field(
        None, description="PEM file of the CAs that vouch for brokers; by default the system's"
    )
    kafka_ssl_certificate_file: FilePath | None = Field(
        None, description="PEM file of the certificate by which brokers know us, with its chain"
    )
    kafka_ssl_key_file: FilePath | None = Field(None, description="PEM file of that certificate's private key")
    kafka_ssl_key_password: SecretStr | None = Field(None, description="password of the private key")
    kafka_properties: Annotated[SecretStr | None, AfterValidator(_allowed)] = Field(
        None, description="further librdkafka properties, name=value, separated by semicolons or line breaks"
    )

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        """Refuse incomplete combinations, and settings that would be ignored."""
        for fault in (self._sasl_fault(), self._ssl_fault()):
            if fault:
                raise ValueError(fault)
        return self

    def _sasl_fault(self) -> str | None:
        user, password = variable("kafka_sasl_username"), variable("kafka_sasl_password")
        if not self.kafka_security_protocol.startswith("sasl"):
            if self.kafka_sasl_mechanism or self.kafka_sasl_username or self.kafka_sasl_password:
                return f"{user} and its like need {variable('kafka_security_protocol')}=sasl_ssl (or sasl_plaintext)"
            return None
        if self.kafka_sasl_mechanism is None:
            return f"{variable('kafka_sasl_mechanism')} is missing: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"
        if self.kafka_sasl_mechanism == "OAUTHBEARER":
            return None if self._is_oidc() else _OIDC
        if not self.kafka_sasl_username or self.kafka_sasl_password is None:
            return f"{self.kafka_sasl_mechanism} needs {user} and {password}"
        return None

    def _ssl_fault(self) -> str | None:
        certificate, key = variable("kafka_ssl_certificate_file"), variable("kafka_ssl_key_file")
        if (self.kafka_ssl_certificate_file is None) != (self.kafka_ssl_key_file is None):
            return f"{certificate} and {key} belong together: set both or neither"
        if not self.kafka_security_protocol.endswith("ssl") and (self.kafka_ssl_ca_file or self.kafka_ssl_key_file):
            return (
                f"{variable('kafka_ssl_ca_file')} and {certificate} need "
                f"{variable('kafka_security_protocol')}=ssl or sasl_ssl"
            )
        return None

    def _is_oidc(self) -> bool:
        return "sasl.oauthbearer.token.endpoint.url" in parse_properties(self.kafka_properties)


_OIDC: Final = (
    f"OAUTHBEARER gets its tokens by OIDC: name sasl.oauthbearer.token.endpoint.url, sasl.oauthbearer.client.id and "
    f"sasl.oauthbearer.client.secret in {variable('kafka_properties')}"
)


def parse_properties(value: SecretStr | None) -> dict[str, str]:
    """Librdkafka properties by name. Raises ValueError without the values, which may be secret."""
    properties: dict[str, str] = {}
    lines = [] if value is None else re.split(r"[;\r\n]", value.get_secret_value())
    for number, line in enumerate(lines, start=1):
        name, equals, text = (part.strip() for part in line.partition("="))
        if not name and not equals:
            continue
        if not equals or not name:
            raise ValueError(f"part {number} is not name=value")
        if name in _OWN_SETTING:
            raise ValueError(f"{name} is set by {variable(_OWN_SETTING[name])}")
        if name in _PROMISES:
            raise ValueError(f"{name} may not be changed: {_PROMISES[name]}")
        properties[name] = text
    return properties
