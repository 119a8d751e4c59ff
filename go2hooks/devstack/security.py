"""Security of `go2hooks up --secure`: a CA for this stack, a certificate for its brokers, a user and a password.

Clients use SASL_SSL (SCRAM-SHA-512). Brokers use the same listener among each other, and connect to their
controllers by TLS with certificates on both sides.
"""

import base64
import hashlib
import ipaddress
import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from go2hooks.devstack.data_dir import write_private
from go2hooks.devstack.errors import StackError
from go2hooks.devstack.quorum import holds_brokers

USER: Final = "go2hooks"
MECHANISM: Final = "SCRAM-SHA-512"
_VALID: Final = timedelta(days=3650)  # a development stack outlives no ten years
_DIRECTORY: Final = "security"
_FILE: Final = "security.json"


@dataclass(frozen=True, slots=True)
class Security:
    """Where the files lie, and the password."""

    directory: Path
    password: str

    @property
    def ca_file(self) -> Path:
        return self.directory / "ca.pem"

    @property
    def keystore(self) -> Path:
        """The brokers' key and certificate."""
        return self.directory / "broker.pem"

    def client_settings(self) -> dict[str, Any]:
        """Settings, by name, with which our services and commands connect to the brokers."""
        return {
            "kafka_security_protocol": "sasl_ssl",
            "kafka_sasl_mechanism": MECHANISM,
            "kafka_sasl_username": USER,
            "kafka_sasl_password": self.password,
            "kafka_ssl_ca_file": str(self.ca_file),
        }

    def broker_settings(self) -> dict[str, str]:
        """The properties for a broker's server.properties; its listeners are named CLIENT and CONTROLLER."""
        login = "org.apache.kafka.common.security.scram.ScramLoginModule required"
        return {
            "listener.security.protocol.map": "CLIENT:SASL_SSL,CONTROLLER:SSL",
            "inter.broker.listener.name": "CLIENT",
            "sasl.enabled.mechanisms": MECHANISM,
            "sasl.mechanism.inter.broker.protocol": MECHANISM,
            "listener.name.client.scram-sha-512.sasl.jaas.config": (
                f'{login} username="{USER}" password="{self.password}";'
            ),
            "listener.name.controller.ssl.client.auth": "required",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.keystore),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.ca_file),
        }

    def format_arguments(self) -> Iterable[str]:
        """For Kafka's StorageTool: the user, with a salted password, since other processes can read arguments."""
        salt = secrets.token_bytes(16)
        iterations = 4096  # the least that Kafka takes; the password is 256 random bits
        salted = hashlib.pbkdf2_hmac("sha512", self.password.encode(), salt, iterations)
        said = (
            f'{MECHANISM}=[name={USER},salt="{base64.b64encode(salt).decode()}",'
            f'saltedpassword="{base64.b64encode(salted).decode()}",iterations={iterations}]'
        )
        return "--add-scram", said


def open_security(directory: Path) -> Security:
    """The security stored in `directory`; created the first time."""
    kept = directory / _FILE
    if not kept.exists():
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        _make_certificates(directory)
        write_private(kept, json.dumps({"password": secrets.token_urlsafe(32)}) + "\n")  # last: all is there
    return Security(directory, json.loads(kept.read_bytes())["password"])


def kept_security(data_dir: Path) -> Security | None:
    """The stored security of the stack in this directory; None when it has none, or starts no Kafka."""
    directory = data_dir / _DIRECTORY
    return open_security(directory) if (directory / _FILE).exists() else None


def secure(data_dir: Path) -> Security:
    """Secure the stack in this directory. Raises StackError when its brokers were formatted without security."""
    kept = kept_security(data_dir)
    if kept is None and holds_brokers(data_dir / "kafka"):
        raise StackError(
            f"{data_dir} holds brokers that were made without --secure, which cannot be changed: leave --secure out, "
            "or choose another directory with --data-dir."
        )
    return kept or open_security(data_dir / _DIRECTORY)


def _make_certificates(directory: Path) -> None:
    """Make the certificates. The CA's key is discarded, so no other certificate can be signed with it."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = _name("Go2 Webhooks development CA")
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    ca = _builder(ca_name, ca_name, ca_key.public_key()).add_extension(constraints, critical=True)
    hosts = [x509.DNSName("localhost"), *(x509.IPAddress(ipaddress.ip_address(a)) for a in ("127.0.0.1", "::1"))]
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    broker = _builder(_name("Go2 Webhooks development broker"), ca_name, key.public_key())
    broker = broker.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
    broker = broker.add_extension(usage, critical=False)
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    chain = (broker.sign(ca_key, hashes.SHA256()).public_bytes(pem), ca.sign(ca_key, hashes.SHA256()).public_bytes(pem))
    write_private(directory / "ca.pem", chain[1].decode())
    write_private(directory / "broker.pem", b"".join((private, *chain)).decode())


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _VALID)
    )
