"""What we demand of a receiver's TLS, and what we show of ourselves."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from go2hooks.core.errors import ClientIdentityError


def client_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """TLS 1.2 or later, certificate and host name verified against the system's CAs and those of `ca_file` (PEM).

    Raises OSError or ssl.SSLError when `ca_file` cannot be read. Reads files: build it once.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


def load_identity(context: ssl.SSLContext, chain: str, private_key: str) -> None:
    """Let connections of `context` identify themselves; both are PEM. Raises ClientIdentityError when OpenSSL refuses.

    OpenSSL's loader reads files only. These are pipes, so that the key touches no disk.
    """
    try:
        with _as_file(chain) as chain_file, _as_file(private_key) as key_file:
            context.load_cert_chain(
                chain_file, key_file, password=""
            )  # a password, or an encrypted key would ask for one
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
