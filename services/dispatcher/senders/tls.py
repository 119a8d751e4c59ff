"""What we demand of a receiver's TLS."""

import ssl
from pathlib import Path


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
