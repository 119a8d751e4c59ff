"""Certificates of private authorities: without some fields that `trustme` always writes."""

import datetime as dt
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_SIGNING = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@dataclass
class Chain:
    """A root and the certificate of a server, issued by it; flawless unless told otherwise."""

    names: tuple[str, ...] = ("localhost",)
    leaf_has_authority_key_id: bool = True
    leaf_usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH
    leaf_key: _Key = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    root_has_key_usage: bool = True
    root_is_authority: bool = True
    root_says_so_critically: bool = True

    def write(self, directory: Path) -> tuple[ssl.SSLContext, Path]:
        """TLS for the server, and the file for who trusts the root."""
        root_key = ec.generate_private_key(ec.SECP256R1())
        root = _builder("root", "root", root_key).add_extension(
            x509.BasicConstraints(ca=self.root_is_authority, path_length=None), critical=self.root_says_so_critically
        )
        if self.root_has_key_usage:
            root = root.add_extension(_SIGNING, critical=True)
        leaf = (
            _builder("leaf", "root", self.leaf_key)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in self.names]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([self.leaf_usage]), critical=False)
        )
        if self.leaf_has_authority_key_id:
            identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key())
            leaf = leaf.add_extension(identifier, critical=False)
        ca_file, server_file = directory / "root.pem", directory / "server.pem"
        ca_file.write_bytes(_pem(root.sign(root_key, hashes.SHA256())))
        server_file.write_bytes(_private_pem(self.leaf_key) + _pem(leaf.sign(root_key, hashes.SHA256())))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers("DEFAULT@SECLEVEL=0")  # that takes weak keys
        context.load_cert_chain(server_file)
        return context, ca_file


def _builder(subject: str, issuer: str, key: _Key) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private_pem(key: _Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
