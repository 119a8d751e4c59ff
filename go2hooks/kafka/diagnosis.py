"""Says in one sentence why Kafka does not answer, and the remedy.

librdkafka says "broker transport failure" for a wrong password, an unknown CA and a plaintext client at a TLS port
alike. So we take the steps of a client ourselves: the address, TLS, the login.
"""

import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from go2hooks.kafka import codes
from go2hooks.settings.environment import variable

log = structlog.get_logger(__name__)

_EVERY_S: Final = 10.0
_STEP_S: Final = 2.0
_LOGIN_S: Final = 3.0
_PORT: Final = 9092  # librdkafka's, where none is named
_DETAIL: Final = re.compile(r"^\S+: |\(after \d+ms in state \w+\)$")

_PROTOCOL: Final = variable("kafka_security_protocol")
_SERVERS: Final = variable("kafka_bootstrap_servers")
_CA: Final = variable("kafka_ssl_ca_file")
_CERTIFICATE: Final = variable("kafka_ssl_certificate_file")
_USER: Final = variable("kafka_sasl_username")
_PASSWORD: Final = variable("kafka_sasl_password")
_MECHANISM: Final = variable("kafka_sasl_mechanism")
_PROPERTIES: Final = variable("kafka_properties")

_NO_TLS: Final = f"does not speak TLS: set {_PROTOCOL} to plaintext or sasl_plaintext, or name its TLS port."
_SILENT: Final = frozenset((codes.TRANSPORT, codes.TIMED_OUT, codes.ALL_BROKERS_DOWN, codes.RESOLVE))
_TOKENLESS: Final = "Failed to acquire SASL OAUTHBEARER token"
_EXPIRED: Final = 10  # OpenSSL's codes of verification errors
_NOT_YET: Final = 9
_OTHER_NAMES: Final = (62, 64)


def explain(error: KafkaException, config: Mapping[str, Any]) -> str:
    """What Kafka refused, in its own words; or why it does not answer, which it finds out. Blocks up to ten seconds."""
    fault: KafkaError = error.args[0]
    if fault.code() in _SILENT:
        return why_away(config)
    return f"Kafka at {config['bootstrap.servers']} refuses: {fault.str()}"


class Diagnosis:
    """Logs why Kafka is away, in a thread of its own, whenever the reason has changed. Any thread."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self._asked_at = -_EVERY_S
        self._said = ""

    def look(self) -> None:
        """Returns at once. Looks every ten seconds at most."""
        now = time.monotonic()
        if now - self._asked_at >= _EVERY_S:
            self._asked_at = now
            threading.Thread(target=self._tell, name="kafka-diagnosis", daemon=True).start()

    def _tell(self) -> None:
        why = why_away(self._config)
        if why != self._said:
            self._said = why
            log.error("kafka is away", why=why)


def why_away(config: Mapping[str, Any]) -> str:
    """Why the brokers of this librdkafka configuration do not answer. Blocks for about ten seconds at most."""
    servers = config["bootstrap.servers"]
    faults = []
    for server in str(servers).split(","):
        fault = _try_server(server.strip(), config)
        if fault is None:  # this one can be spoken to
            return f"Kafka at {servers} {_try_login(config)}"
        faults.append(fault)
    return f"Kafka at {servers} {faults[0]}"


def _try_server(server: str, config: Mapping[str, Any]) -> str | None:
    """What keeps us from speaking to this server; None when address and encryption are right."""
    host, port = _address(server)
    protocol = str(config.get("security.protocol", "plaintext")).lower()
    try:
        with socket.create_connection((host, port), timeout=_STEP_S) as plain:
            if protocol.endswith("ssl"):
                return _try_tls(plain, host, config)
        return _refuse_tls(host, port)
    except OSError as error:
        return f"does not answer: {error.strerror or error}. Start it, or correct {_SERVERS}."


def _address(server: str) -> tuple[str, int]:
    _scheme, _, rest = server.rpartition("://")
    host, colon, port = rest.rpartition(":")
    if colon and port.isdecimal() and not host.endswith(":"):
        return host.strip("[]"), int(port)
    return rest.strip("[]"), _PORT


def _try_tls(plain: socket.socket, host: str, config: Mapping[str, Any]) -> str | None:
    context = ssl.create_default_context(cafile=config.get("ssl.ca.location"))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # on by default from Python 3.13; librdkafka is not so strict
    if config.get("ssl.endpoint.identification.algorithm") == "none":
        context.check_hostname = False
    try:
        if "ssl.certificate.location" in config:
            password = config.get("ssl.key.password") or ""  # never asked for at a terminal
            context.load_cert_chain(config["ssl.certificate.location"], config["ssl.key.location"], password)
        with context.wrap_socket(plain, server_hostname=host) as secure:
            return _await_refusal(secure)
    except ssl.SSLCertVerificationError as error:
        return _explain_certificate(error, host)
    except ssl.SSLError as error:
        has_closed = isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError))
        if has_closed or error.reason in ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING"):
            return _NO_TLS
        return f"ends the TLS handshake: {error.reason or error}. Check {_CERTIFICATE} and its key."
    except (ConnectionError, TimeoutError):
        return _NO_TLS


def _await_refusal(secure: ssl.SSLSocket) -> str | None:
    """In TLS 1.3 a server that refuses our certificate says so after the handshake."""
    secure.settimeout(0.3)
    try:
        if secure.recv(1) == b"":
            return f"closes the connection: it may ask for a client certificate ({_CERTIFICATE})."
    except TimeoutError:
        return None
    except ssl.SSLError as error:
        return f"refuses our client certificate: {error.reason or error}. Check {_CERTIFICATE} and its key."
    return None


def _explain_certificate(error: ssl.SSLCertVerificationError, host: str) -> str:
    match error.verify_code:
        case code if code in _OTHER_NAMES:
            return f"has a certificate for another name than {host}: correct {_SERVERS} or the broker's certificate."
        case code if code == _EXPIRED:
            return "has a certificate that has expired: renew it at the broker."
        case code if code == _NOT_YET:
            return "has a certificate that is not valid yet: compare the clocks."
        case _:
            return f"has a certificate that no known CA vouches for ({error.verify_message}): name its CA in {_CA}."


def _refuse_tls(host: str, port: int) -> str | None:
    """We speak no TLS. Whether the server does, and so gives us no answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # only to learn whether TLS is spoken; nothing is sent
    with socket.create_connection((host, port), timeout=_STEP_S) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=host):
                return f"speaks TLS: set {_PROTOCOL} to ssl or sasl_ssl, or name a port without it."
        except (ssl.SSLError, ConnectionError, TimeoutError):
            return None


def _try_login(config: Mapping[str, Any]) -> str:
    """The address and the encryption are right. What a client of ours is told."""
    reports: list[KafkaError] = []
    quiet: dict[str, Any] = {"log_level": 0, "error_cb": reports.append, "reconnect.backoff.max.ms": 500}
    client = AdminClient({**config, **quiet})
    deadline = time.monotonic() + _LOGIN_S
    while time.monotonic() < deadline:
        try:
            client.list_topics(timeout=0.5)
        except KafkaException:
            client.poll(0.1)
        else:
            return "answers again."
        refused = next((error for error in reports if error.code() == codes.AUTHENTICATION), None)
        if refused is not None:
            return _explain_login(_DETAIL.sub("", refused.str()).strip())
    if str(config.get("security.protocol", "plaintext")).lower().startswith("sasl"):
        return "takes the connection and does not answer. Look after its brokers."
    return f"takes the connection and does not answer: it may ask for a user and a password ({_PROTOCOL}, {_USER})."


def _explain_login(said: str) -> str:
    if "Unsupported SASL mechanism" in said:
        offered = said.rpartition("mechanisms: ")[2]
        return f"does not take this SASL mechanism: set {_MECHANISM} to one of {offered}."
    if "not valid in current SASL state" in said:
        return f"asks for no login: set {_PROTOCOL} to plaintext or ssl."
    if "invalid credentials" in said or "Invalid username or password" in said:
        return f"refuses the user or the password: check {_USER} and {_PASSWORD}."
    if _TOKENLESS in said:
        why = said.partition(": ")[2] or "no answer"
        return f"is not asked, as we get no token ({why}): check sasl.oauthbearer.* in {_PROPERTIES}, the client's secret above all."
    return f"refuses the login: {said}."
