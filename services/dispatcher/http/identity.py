"""Who we are to a receiver that asks for a client certificate."""

import ssl
from typing import Protocol

IdentityName = tuple[str, bytes]  #: a webhook's id and the digest of its certificate


class Identity(Protocol):
    """One webhook's client certificate."""

    @property
    def name(self) -> IdentityName:
        """Connections are shared by requests under the same name, and with nobody else's."""

    async def context(self) -> ssl.SSLContext:
        """TLS with this certificate. Raises SealError or ClientIdentityError when its key cannot be used."""
        ...
