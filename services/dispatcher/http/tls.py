"""TLS with receivers: versions, ciphers, how certificates are verified, and client certificates."""

import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

from go2hooks.core.errors import ClientIdentityError

# For TLS 1.2; docs/receivers.md lists the resulting suites. All have forward secrecy: without it, somebody who gets a
# receiver's key later could decrypt recorded traffic.
_CIPHERS: Final = "@SECLEVEL=2:ECDH+AESGCM:ECDH+CHACHA20:ECDH+AES:DHE+AES:!aNULL:!eNULL:!aDSS:!SHA1:!AESCCM"
# Without VERIFY_X509_STRICT, which is a default since Python 3.13: it refuses certificates of private authorities that
# curl, Node and Go accept. An intermediate in `ca_file` is trusted by itself, as with curl and Go.
_VERIFY_FLAGS: Final = ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN
_HOSTNAME_MISMATCH: Final = 62  # OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH


def client_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """TLS 1.2 or later, certificate and host name verified against the system's CAs and those of `ca_file` (PEM).

    Every option is set, since the defaults differ between Python's releases and builds. Raises OSError or ssl.SSLError
    when `ca_file` cannot be read. Reads files: build it once.
    """
    context = _Context(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificate and host name
    context.verify_flags = _VERIFY_FLAGS
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    context.load_default_certs()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


class _Session(ssl.SSLObject):
    """TLS with one receiver. Checks a name with an underscore itself: see `_Context`.

    It does so at the end of the handshake: after a client certificate was sent, before the request is.
    """

    def do_handshake(self) -> None:
        super().do_handshake()
        host = self.server_hostname
        if host is not None and "_" in host and not is_for(host, cast("dict[str, Any]", self.getpeercert())):
            error = ssl.SSLCertVerificationError(1, "the certificate is for another host name")
            error.verify_code = _HOSTNAME_MISMATCH
            raise error


class _Context(ssl.SSLContext):
    """In OpenSSL a wildcard does not match a label with an underscore; in browsers, curl, Node and Go it does.

    So for names with an underscore OpenSSL checks the certificate without the name.
    """

    sslobject_class = _Session

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,  # noqa: FBT001, FBT002  # as in the class above
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        is_ours_to_check = isinstance(server_hostname, str) and "_" in server_hostname
        self.check_hostname = not is_ours_to_check
        try:
            return super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        finally:
            self.check_hostname = True


def is_for(host: str, certificate: Mapping[str, Any]) -> bool:
    """Whether a certificate, as `getpeercert` returns it, names `host`. A wildcard needs two more labels."""
    names = {value.lower() for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"}
    _, _, parent = host.lower().partition(".")
    return host.lower() in names or ("." in parent and f"*.{parent}" in names)


def load_identity(context: ssl.SSLContext, chain: str, private_key: str) -> None:
    """Give `context` a client certificate; both are PEM. Raises ClientIdentityError when OpenSSL refuses it.

    OpenSSL reads files only. These are pipes, so that the key is never on a disk.
    """
    try:
        with _as_file(chain) as chain_file, _as_file(private_key) as key_file:
            # Without a password, OpenSSL would ask the terminal for that of an encrypted key.
            context.load_cert_chain(chain_file, key_file, password="")
    except (ssl.SSLError, OSError) as error:
        raise ClientIdentityError("cannot be used") from error


@contextmanager
def _as_file(text: str) -> Iterator[str]:
    """The path of a file that can be read once. Raises OSError when a pipe has no room for so much (64 KiB)."""
    reading, writing = os.pipe()
    try:
        try:
            os.set_blocking(writing, False)
            if os.write(writing, text.encode("ascii")) != len(text):
                raise BlockingIOError
        finally:
            os.close(writing)
        yield f"/dev/fd/{reading}"
    finally:
        os.close(reading)
