"""What is accepted as a webhook's client certificate, and what is said of each that is not."""

import base64
import datetime as dt
import subprocess
from hashlib import sha256

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from go2hooks.core.errors import CertificateError, PrivateKeyError
from go2hooks.core.security.certificate import LIMITS, describe, read_client_certificate

NOW = dt.datetime(2026, 11, 24, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
PKCS8, TRADITIONAL = PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL
PLAIN = NoEncryption()


def make_key(curve=ec.SECP256R1):
    return ec.generate_private_key(curve())


def issue(subject, key, issuer="", issuer_key=None, *, after=NOW + DAY, before=NOW - DAY, usages=(), digest=None):
    """A certificate; self-signed without an issuer."""
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in (subject, issuer or subject)]
    builder = (
        x509.CertificateBuilder(*reversed(names), key.public_key(), 0x0ABC)
        .not_valid_before(before)
        .not_valid_after(after)
    )
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    signer = issuer_key or key
    return builder.sign(signer, None if isinstance(signer, ed25519.Ed25519PrivateKey) else digest or hashes.SHA256())


def pem(*certificates):
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in certificates)


def pem_key(key, form=PKCS8, encryption=PLAIN):
    return key.private_bytes(Encoding.PEM, form, encryption).decode()


KEY, OTHER, ROOT_KEY, SUB_KEY = make_key(), make_key(), make_key(), make_key()
RSA = rsa.generate_private_key(65537, 2048)
ROOT = issue("Root", ROOT_KEY)
SUB = issue("Sub", SUB_KEY, "Root", ROOT_KEY)
LEAF = issue("client", KEY, "Sub", SUB_KEY)


def read(chain, key, now=NOW):
    return read_client_certificate(chain, key, now)


def test_a_chain_and_its_key_come_back_in_one_spelling():
    messy = "\r\n  " + pem(LEAF).replace("\n", "\r\n") + "\n\n" + pem(SUB, ROOT) + "\t\n"
    accepted = read(messy, "\n" + pem_key(KEY, TRADITIONAL))
    assert accepted.chain == pem(LEAF, SUB, ROOT)
    assert accepted.private_key == pem_key(KEY)
    assert accepted.not_after == NOW + DAY
    ders = b"".join(each.public_bytes(Encoding.DER) for each in (LEAF, SUB, ROOT))
    assert accepted.digest == sha256(ders).digest()


def test_a_single_certificates_digest_is_its_fingerprint_and_another_chain_has_another():
    alone = read(pem(LEAF), pem_key(KEY))
    assert alone.digest == LEAF.fingerprint(hashes.SHA256())
    assert read(pem(LEAF, SUB), pem_key(KEY)).digest != alone.digest


@pytest.mark.parametrize(
    "key",
    [RSA, make_key(ec.SECP384R1), make_key(ec.SECP521R1), ed25519.Ed25519PrivateKey.generate()],
    ids=["RSA", "P-384", "P-521", "Ed25519"],
)
@pytest.mark.parametrize("form", [PKCS8, TRADITIONAL], ids=["PKCS#8", "traditional"])
def test_the_usual_kinds_of_keys_are_accepted(key, form):
    if form is TRADITIONAL and isinstance(key, ed25519.Ed25519PrivateKey):
        pytest.skip("has no such form")
    accepted = read(pem(issue("client", key)), pem_key(key, form))
    assert load_pem_private_key(accepted.private_key.encode(), None).public_key() == key.public_key()


def test_a_key_as_openssl_writes_it_with_its_parameters_is_accepted(tmp_path):
    (tmp_path / "key.pem").write_text(pem_key(KEY, TRADITIONAL))
    command = ["openssl", "ecparam", "-name", "prime256v1"]
    parameters = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "BEGIN EC PARAMETERS" in parameters
    assert read(pem(LEAF), parameters + pem_key(KEY, TRADITIONAL)).private_key == pem_key(KEY)


def test_a_certificate_for_clients_or_for_anything_is_accepted():
    for usage in (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE):
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, usage]
        assert read(pem(issue("client", KEY, usages=usages)), pem_key(KEY))


def damaged(certificate):
    lines = pem(certificate).splitlines(keepends=True)
    return "".join((lines[0], lines[2], lines[1], *lines[3:]))


def signed_with_sha1():
    """The library makes none any more: the algorithm's name is changed afterwards."""
    der = issue("client", KEY, "Root", RSA).public_bytes(Encoding.DER)
    sha256_with_rsa, sha1_with_rsa = (bytes.fromhex(f"2a864886f70d0101{last}") for last in ("0b", "05"))
    return pem(x509.load_der_x509_certificate(der.replace(sha256_with_rsa, sha1_with_rsa)))


def for_pss_alone():
    """The library makes none: the key's kind is changed afterwards, and nobody checks a self-signed one's signature."""
    der = issue("client", RSA).public_bytes(Encoding.DER)
    any_rsa, pss_alone = (
        bytes.fromhex("300d06092a864886f70d0101010500"),
        bytes.fromhex("300d06092a864886f70d01010a3000"),
    )
    return pem(x509.load_der_x509_certificate(der.replace(any_rsa, pss_alone)))


SMALL = rsa.generate_private_key(65537, 1024)
P192 = make_key(ec.SECP192R1)
DSA = dsa.generate_private_key(2048)
RSA_PSS = for_pss_alone()
KOBLITZ = make_key(ec.SECP256K1)
BAD_CHAINS = {
    "nothing": ("", "is not PEM"),
    "no PEM": ("certificate", "is not PEM"),
    "DER in base64": (pem(LEAF).split("-----")[2], "is not PEM"),
    "no base64": ("-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----", "something besides base64"),
    "other letters": (pem(LEAF).replace("MII", "MÄI", 1), "something besides base64"),
    "cut short": (pem(LEAF)[:-30], "has no -----END CERTIFICATE-----"),
    "garbage behind": (pem(LEAF) + "x", "nothing besides its PEM blocks"),
    "garbage in front": ("subject=CN = client\n" + pem(LEAF), "nothing besides its PEM blocks"),
    "garbage between": (pem(LEAF) + "--\n" + pem(SUB), "nothing besides its PEM blocks"),
    "a NUL": (pem(LEAF) + "\0", "nothing besides its PEM blocks"),
    "damaged": (damaged(LEAF), "certificate 1 is damaged"),
    "no certificate in it": (
        "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----",
        "certificate 1 is damaged",
    ),
    "damaged further on": (pem(LEAF) + damaged(SUB), "certificate 2 is damaged"),
    "a private key in it": (pem(LEAF) + pem_key(KEY), "must not hold a private key"),
    "a request": (pem(LEAF).replace(" CERTIFICATE", " CERTIFICATE REQUEST"), "nothing but blocks"),
    "too many": (pem(LEAF) + pem(ROOT) * LIMITS.certificates, "more than 5 certificates"),
    "far too many": (pem(LEAF) * 1000, "more than 32768 characters"),
    "expired": (pem(issue("client", KEY, after=NOW)), "CN=client expired at 2026-11-24T12:00:00Z"),
    "issuer expired": (pem(LEAF, issue("Sub", SUB_KEY, after=NOW - DAY / 2)), "CN=Sub expired"),
    "not valid yet": (pem(issue("client", KEY, before=NOW + DAY / 2)), "CN=client is not valid before 2026-11-25T00"),
    "SHA-1": (signed_with_sha1(), "signed with SHA-1"),
    "for servers": (pem(issue("client", KEY, usages=[ExtendedKeyUsageOID.SERVER_AUTH])), "lacks clientAuth"),
    "weak RSA": (pem(issue("client", SMALL)), "too weak: RSA with 1024 bits, 2048 are needed"),
    "a weak issuer": (pem(issue("client", KEY, "Old", SMALL), issue("Old", SMALL)), "CN=Old is too weak: 1024 bits"),
    "a weak issuer's curve": (
        pem(issue("client", KEY, "Old", P192), issue("Old", P192)),
        "CN=Old is too weak: 192 bits",
    ),
    "RSA-PSS": (RSA_PSS, "RSA-PSS alone"),
    "SHA-3": (pem(issue("client", KEY, "Root", ROOT_KEY, digest=hashes.SHA3_256())), "another hash"),
    "DSA": (pem(issue("client", DSA)), "use RSA, ECDSA or EdDSA"),
    "a curve of no use": (pem(issue("client", KOBLITZ)), "use P-256, P-384 or P-521"),
    "the other way round": (pem(SUB, LEAF), "out of order: the certificate of the private key comes first"),
    "one left out": (pem(LEAF, ROOT), "out of order: the webhook's own certificate comes first"),
    "order behind": (pem(LEAF, ROOT, SUB), "out of order: the webhook's own certificate comes first"),
    "same name, another key": (pem(LEAF, issue("Sub", OTHER)), "out of order"),
}


@pytest.mark.parametrize("name", BAD_CHAINS)
def test_a_bad_chain_is_refused_with_its_reason(name):
    chain, reason = BAD_CHAINS[name]
    with pytest.raises(CertificateError) as refused:
        read(chain, pem_key(KEY))
    assert reason in str(refused.value)


def with_other_private_exponent(key):
    numbers = key.private_numbers()
    return rsa.RSAPrivateNumbers(
        numbers.p, numbers.q, numbers.d + 2, numbers.dmp1, numbers.dmq1, numbers.iqmp, numbers.public_numbers
    ).private_key(unsafe_skip_rsa_key_validation=True)


ENCRYPTED = BestAvailableEncryption(b"password")
SHORT_ED25519 = base64.b64encode(bytes.fromhex("302d020100300506032b65700421041f") + bytes(31)).decode()
BAD_KEYS = {
    "nothing": ("", "is not PEM"),
    "no PEM": ("secret", "is not PEM"),
    "another's": (pem_key(OTHER), "does not belong to the certificate"),
    "another kind": (pem_key(RSA), "does not belong to the certificate"),
    "encrypted": (pem_key(KEY, PKCS8, ENCRYPTED), "must not be encrypted"),
    "encrypted the old way": (pem_key(KEY, TRADITIONAL, ENCRYPTED), "must not be encrypted"),
    "garbage behind": (pem_key(KEY) + "x", "nothing besides its PEM blocks"),
    "garbage in front": ("Bag Attributes\n" + pem_key(KEY), "nothing besides its PEM blocks"),
    "two": (pem_key(KEY) * 2, "must hold one private key"),
    "a certificate": (pem(LEAF), "must hold one private key"),
    "OpenSSH's": (pem_key(KEY, PrivateFormat.OpenSSH), "must hold one private key"),
    "damaged": ("-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----", "is damaged"),
    "a byte too short": (f"-----BEGIN PRIVATE KEY-----\n{SHORT_ED25519}\n-----END PRIVATE KEY-----", "is damaged"),
    "too long": (pem_key(KEY) + " " * 5000, "more than 4096 characters"),
}


@pytest.mark.parametrize("name", BAD_KEYS)
def test_a_bad_key_is_refused_with_its_reason(name):
    text, reason = BAD_KEYS[name]
    with pytest.raises(PrivateKeyError) as refused:
        read(pem(LEAF), text)
    assert reason in str(refused.value)


def test_an_rsa_key_whose_numbers_do_not_fit_is_refused():
    with pytest.raises(PrivateKeyError, match="do not fit together"):
        read(pem(issue("client", RSA)), pem_key(with_other_private_exponent(RSA)))


def test_no_refusal_repeats_the_key():
    for text, _ in BAD_KEYS.values():
        with pytest.raises(PrivateKeyError) as refused:
            read(pem(LEAF), text)
        lines = [line for line in text.splitlines() if len(line) > 20 and "-----" not in line]
        assert not any(line in str(refused.value) for line in lines)


def test_a_description_agrees_with_openssl(tmp_path):
    file = tmp_path / "chain.pem"
    file.write_text(pem(LEAF, SUB))
    shown = describe(pem(LEAF, SUB))
    command = ["openssl", "x509", "-in", file, "-noout", "-serial", "-fingerprint", "-sha256"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"serial={shown.serial}\n" in printed
    assert f"={shown.fingerprint}\n" in printed
    assert (shown.subject, shown.issuer) == ("CN=client", "CN=Sub")
    assert (shown.not_before, shown.not_after) == (NOW - DAY, NOW + DAY)
