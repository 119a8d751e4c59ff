"""TLS: the same demands under every Python, and names that OpenSSL does not check for us."""

import re
import ssl
from pathlib import Path

import pytest

from services.dispatcher.http.tls import client_context, is_for

GUIDE = Path(__file__).parents[2] / "docs/receivers.md"


def test_what_is_demanded_does_not_depend_on_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nor on how it was built, nor on the environment, which could ask for keys to be written down."""
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    context = client_context()
    assert context.verify_flags == ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert (context.minimum_version, context.security_level) == (ssl.TLSVersion.TLSv1_2, 2)
    assert context.keylog_filename is None


def test_the_guide_lists_the_ciphers_that_are_offered() -> None:
    offered = {cipher["name"] for cipher in client_context().get_ciphers()}
    assert set(re.findall(r"`((?:TLS_|ECDHE-|DHE-)\w+(?:-\w+)*)`", GUIDE.read_text(encoding="utf-8"))) == offered


def test_a_context_goes_on_checking_names_after_one_with_an_underscore() -> None:
    context = client_context()
    context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="my_app.hooks.test")
    assert context.check_hostname


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("*.hooks.test", "my_app.hooks.test"),
        ("*.HOOKS.test", "my_app.hooks.test"),
        ("*.hooks.test", "_.hooks.test"),
        ("*.my_hooks.test", "app.my_hooks.test"),
        ("my_app.hooks.test", "my_app.hooks.test"),
        ("my_app", "my_app"),
    ],
)
def test_a_certificate_is_for_its_names_and_a_wildcard_for_one_label(name: str, host: str) -> None:
    assert is_for(host, {"subjectAltName": (("DNS", "first.example"), ("DNS", name))})


@pytest.mark.parametrize(
    "name",
    [
        *("*.other.test", "a.hooks.test", "*.my_app.hooks.test", "*.test", "*", "*.*.test", "my_*.hooks.test"),
        *("my-app.hooks.test", ".hooks.test", "hooks.test", "my_app.hooks.test.", "my_app.hooks.test\0.other.test"),
    ],
)
def test_a_certificate_is_for_no_other_name(name: str) -> None:
    assert not is_for("my_app.hooks.test", {"subjectAltName": (("DNS", name),)})


@pytest.mark.parametrize(
    "certificate",
    [
        {},
        {"subject": ((("commonName", "my_app.hooks.test"),),)},
        {"subjectAltName": (("email", "my_app.hooks.test"), ("URI", "my_app.hooks.test"))},
    ],
)
def test_a_certificate_is_for_nothing_but_its_dns_names(certificate: dict[str, object]) -> None:
    assert not is_for("my_app.hooks.test", certificate)
