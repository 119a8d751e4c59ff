"""Client certificates (mTLS): what an account may upload for a webhook, and what is shown of it."""

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import pairwise
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, PublicKeyAlgorithmOID

from go2hooks.core.errors import CertificateError, PrivateKeyError


@dataclass(frozen=True, slots=True)
class CertificateLimits:
    """What is accepted as a client certificate."""

    certificates: int = 5  #: in a chain: the webhook's own and four issuers
    chain_chars: int = 32_768  #: room for five large certificates as PEM; they are sent at each TLS handshake
    key_chars: int = 4_096  #: room for RSA with 4096 bits as PEM
    min_rsa_bits: int = 2048  #: what OpenSSL asks for at security level 2
    min_curve_bits: int = 224  #: of the issuers' keys, as OpenSSL asks for


LIMITS: Final = CertificateLimits()

_BEGIN: Final = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,40})-----[ \t]*\r?\n")
_KEY_LABELS: Final = ("PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY")
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
# Those that TLS has names for; EdDSA needs none.
_HASHES: Final = (hashes.SHA224, hashes.SHA256, hashes.SHA384, hashes.SHA512, type(None))
# InternalError: what OpenSSL refuses in ways that the library does not know, such as an Ed25519 key a byte too short.
_PARSING: Final = (
    ValueError, TypeError, UnsupportedAlgorithm, InternalError, x509.InvalidVersion, x509.DuplicateExtension,
)  # fmt: skip
_SECOND: Final = timedelta(seconds=1)

_PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey


class ClientCertificate(NamedTuple):
    """A chain and its key, checked, in one spelling: PEM without anything around it."""

    chain: str  #: the webhook's own certificate first, then each one's issuer
    private_key: str  #: PKCS#8, not encrypted
    digest: bytes  #: SHA-256 over the chain: names what a receiver gets to see
    not_after: datetime  #: when the webhook's own certificate expires


class Description(NamedTuple):
    """What its owner may see of the webhook's own certificate."""

    subject: str  #: RFC 4514
    issuer: str
    serial: str  #: hexadecimal, as openssl prints it
    not_before: datetime
    not_after: datetime
    fingerprint: str  #: SHA-256 of the certificate, as openssl prints it


def read_client_certificate(chain: str, private_key: str, now: datetime) -> ClientCertificate:
    """Check what an account uploads, in milliseconds.

    Raises CertificateError for the chain and PrivateKeyError for the key, with one sentence for the customer.
    """
    certificates = _read_chain(chain)
    for certificate in certificates:
        _check_certificate(certificate, now)
    public_key = _check_own(certificates[0])
    key_pem = _read_key(private_key, public_key, certificates)
    for issued, issuer in pairwise(certificates):
        _check_order(issued, issuer)
        _check_issuer(issuer)
    ders = [certificate.public_bytes(Encoding.DER) for certificate in certificates]
    return ClientCertificate(
        "".join(certificate.public_bytes(Encoding.PEM).decode("ascii") for certificate in certificates),
        key_pem,
        sha256(b"".join(ders)).digest(),
        certificates[0].not_valid_after_utc,
    )


def describe(chain: str) -> Description:
    """The webhook's own certificate, of a chain that was accepted before."""
    own = x509.load_pem_x509_certificate(chain.encode("ascii"))
    serial = f"{own.serial_number:X}"
    return Description(
        own.subject.rfc4514_string(),
        own.issuer.rfc4514_string(),
        serial if len(serial) % 2 == 0 else f"0{serial}",
        own.not_valid_before_utc,
        own.not_valid_after_utc,
        own.fingerprint(hashes.SHA256()).hex(":").upper(),
    )


# --- the chain


def _read_chain(text: str) -> list[x509.Certificate]:
    if len(text) > LIMITS.chain_chars:
        raise CertificateError(f"must not have more than {LIMITS.chain_chars} characters")
    try:
        blocks = list(_blocks(text, LIMITS.certificates + 1))
    except ValueError as error:
        raise CertificateError(str(error)) from None
    if any("PRIVATE KEY" in label for label, _ in blocks):
        raise CertificateError("must not hold a private key: send that as privateKey")
    if any(label != "CERTIFICATE" for label, _ in blocks):
        raise CertificateError("must hold nothing but blocks that begin with -----BEGIN CERTIFICATE-----")
    if len(blocks) > LIMITS.certificates:
        raise CertificateError(f"must not hold more than {LIMITS.certificates} certificates")
    return [_read_certificate(der, number) for number, (_, der) in enumerate(blocks, 1)]


def _read_certificate(der: bytes, number: int) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(der)
        # The parts are read when they are asked for: let them fail here.
        certificate.subject.rfc4514_string(), certificate.issuer.rfc4514_string()
        certificate.extensions, certificate.public_key(), certificate.signature_hash_algorithm
    except _PARSING:
        raise CertificateError(f"certificate {number} is damaged, or of a kind that is not supported") from None
    return certificate


def _check_certificate(certificate: x509.Certificate, now: datetime) -> None:
    name = certificate.subject.rfc4514_string()[:100]
    if now >= certificate.not_valid_after_utc:
        raise CertificateError(f"the certificate {name} expired at {_date(certificate.not_valid_after_utc)}")
    if now + _SECOND < certificate.not_valid_before_utc:
        raise CertificateError(f"the certificate {name} is not valid before {_date(certificate.not_valid_before_utc)}")
    is_root = certificate.subject == certificate.issuer  # whose signature nobody checks
    if not isinstance(certificate.signature_hash_algorithm, _HASHES) and not is_root:
        raise CertificateError(
            f"the certificate {name} is signed with SHA-1, MD5 or another hash that TLS has no use for"
        )


def _check_own(certificate: x509.Certificate) -> _PublicKey:
    """What only the webhook's own certificate has to be. Returns its public key."""
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        usages = None
    wanted = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
    if usages is not None and not any(usage in usages for usage in wanted):
        raise CertificateError("the first certificate is not for clients: its extended key usage lacks clientAuth")
    # Its key would be kept as plain RSA, which OpenSSL finds not to match.
    if certificate.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS:
        raise CertificateError("the key is for RSA-PSS alone; use an RSA key without that restriction")
    public_key = certificate.public_key()
    match public_key:
        case rsa.RSAPublicKey() if public_key.key_size < LIMITS.min_rsa_bits:
            bits = public_key.key_size
            raise CertificateError(f"the key is too weak: RSA with {bits} bits, {LIMITS.min_rsa_bits} are needed")
        case ec.EllipticCurvePublicKey() if not isinstance(public_key.curve, _CURVES):
            raise CertificateError(f"the key's curve is {public_key.curve.name}; use P-256, P-384 or P-521")
        case rsa.RSAPublicKey() | ec.EllipticCurvePublicKey() | ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
            return public_key
    raise CertificateError("the key is of a kind that TLS clients cannot use; use RSA, ECDSA or EdDSA")


def _check_order(issued: x509.Certificate, issuer: x509.Certificate) -> None:
    try:
        issued.verify_directly_issued_by(issuer)
    except (*_PARSING, InvalidSignature):
        raise CertificateError(
            "the chain is out of order: the webhook's own certificate comes first, then that which issued it, and so on"
        ) from None


def _check_issuer(certificate: x509.Certificate) -> None:
    """What OpenSSL asks of each certificate that it is to send."""
    key = certificate.public_key()
    match key:
        case rsa.RSAPublicKey() | dsa.DSAPublicKey():
            needed = LIMITS.min_rsa_bits
        case ec.EllipticCurvePublicKey():
            needed = LIMITS.min_curve_bits
        case _:
            return
    if key.key_size < needed:
        name = certificate.subject.rfc4514_string()[:100]
        raise CertificateError(
            f"the key of the certificate {name} is too weak: {key.key_size} bits, {needed} are needed"
        )


# --- the key


def _read_key(text: str, public_key: _PublicKey, certificates: list[x509.Certificate]) -> str:
    """PKCS#8 as PEM."""
    if len(text) > LIMITS.key_chars:
        raise PrivateKeyError(f"must not have more than {LIMITS.key_chars} characters")
    if "ENCRYPTED" in text:
        raise PrivateKeyError("must not be encrypted; openssl pkey -in key.pem takes the password off")
    try:
        blocks = [block for block in _blocks(text, 3) if block[0] != "EC PARAMETERS"]  # openssl writes them in front
    except ValueError as error:
        raise PrivateKeyError(str(error)) from None
    if len(blocks) != 1 or blocks[0][0] not in _KEY_LABELS:
        raise PrivateKeyError("must hold one private key: PKCS#8, PKCS#1 or EC, as PEM")
    try:
        # A check that RSA's primes are prime takes a second and blocks the process. `_is_sound` does not make it.
        key = load_der_private_key(blocks[0][1], None, unsafe_skip_rsa_key_validation=True)
        spki = _spki(key.public_key())
    except _PARSING:
        raise PrivateKeyError("is damaged, or of a kind that is not supported") from None
    _check_match(spki, public_key, certificates)
    if isinstance(key, rsa.RSAPrivateKey) and not _is_sound(key.private_numbers()):
        raise PrivateKeyError("is damaged: its numbers do not fit together")
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")


def _check_match(spki: bytes, public_key: _PublicKey, certificates: list[x509.Certificate]) -> None:
    if spki == _spki(public_key):
        return
    if any(spki == _spki(certificate.public_key()) for certificate in certificates[1:]):
        raise CertificateError("the chain is out of order: the certificate of the private key comes first")
    raise PrivateKeyError("does not belong to the certificate")


def _is_sound(key: rsa.RSAPrivateNumbers) -> bool:
    """Whether the private numbers belong to the public ones, and none of them makes the arithmetic fail."""
    is_odd = key.p > 2 and key.q > 2 and key.p & key.q & 1  # noqa: PLR2004  # as all primes but 2
    if not is_odd or key.p * key.q != key.public_numbers.n:
        return False
    exponents = (key.d * key.public_numbers.e % (prime - 1) == 1 for prime in (key.p, key.q))
    by_prime = (key.dmp1, key.dmq1) == (key.d % (key.p - 1), key.d % (key.q - 1))
    return all(exponents) and by_prime and key.iqmp * key.q % key.p == 1


def _spki(public_key: object) -> bytes:
    encoded: bytes = public_key.public_bytes(  # type: ignore[attr-defined]  # every kind of key has this method
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    return encoded


# --- PEM


def _blocks(text: str, limit: int) -> Iterator[tuple[str, bytes]]:
    """Label and content of each block, `limit` at most. Raises ValueError with the end of the error message."""
    rest = text.strip()
    if "-----BEGIN " not in rest:
        raise ValueError("is not PEM: it has no -----BEGIN … line")
    for _ in range(limit):
        begin = _BEGIN.match(rest)
        if begin is None:
            raise ValueError("must hold nothing besides its PEM blocks: remove what stands around them")
        body, end, rest = rest[begin.end() :].partition(f"-----END {begin[1]}-----")
        if not end:
            raise ValueError(f"is not complete PEM: a block has no -----END {begin[1]}----- line")
        yield begin[1], _decode(body)
        rest = rest.lstrip()
        if not rest:
            return


def _decode(body: str) -> bytes:
    try:
        return base64.b64decode("".join(body.split()).encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ValueError("is not PEM: a block holds something besides base64") from None


def _date(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
