"""The checks of the egress proxy for `go2hooks doctor`."""

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from go2hooks.cli.checks import TIMEOUT_S, Finding
from go2hooks.core.security.egress import Meaning, ProxyAddress, ProxyAnswer, connect_request, read_answer

if TYPE_CHECKING:
    from go2hooks.settings import Settings

_SUBJECT: Final = "egress proxy"
_NOWHERE: Final = "go2hooks-doctor.invalid"  # a reserved name (RFC 6761)
_INSIDE: Final = "169.254.169.254"  # the metadata service of clouds
_REMEDIES: Final = {
    Meaning.CREDENTIALS: "Correct the user and the password in GO2HOOKS_EGRESS_PROXY.",
    Meaning.FORBIDDEN: "Permit the dispatchers' machines to use it, and any host as a destination.",
    Meaning.UNEXPECTED: "Correct GO2HOOKS_EGRESS_PROXY: it must name an HTTP proxy that takes CONNECT.",
}


def check_egress_proxy(settings: "Settings") -> Iterator[Finding]:
    """Check that the egress proxy answers, accepts our credentials, and refuses a private address."""
    address = settings.egress_proxy_address()
    if address is None:
        return
    where = f"{address.host}:{address.port}"
    try:
        proxy = _Proxy(address, _tls(settings) if address.is_tls else None, settings.delivery_timeout_s)
        answer = proxy.ask(_NOWHERE)
    except _SilenceError:
        detail = f"{where} takes connections, but says nothing for {settings.delivery_timeout_s:g} s to a name that nobody has"
        yield Finding(_SUBJECT, detail, "See whether it can look names up. It must give up sooner than deliveries do.")
        return
    except OSError as error:
        yield Finding(_SUBJECT, f"{where} does not answer: {error}", "Start it, or correct GO2HOOKS_EGRESS_PROXY.")
        return
    if answer.meaning in _REMEDIES:
        said = f"answers {answer.status}" if answer.status else "answers, but not in HTTP"
        yield Finding(_SUBJECT, f"{where} {said}", _REMEDIES[answer.meaning])
        return
    yield Finding(_SUBJECT, f"{where} answers{' and takes our credentials' if address.authorization else ''}")
    if not settings.allow_insecure_targets:
        yield _check_that_inside_is_refused(proxy)


def _check_that_inside_is_refused(proxy: "_Proxy") -> Finding:
    try:
        is_refused = proxy.ask(_INSIDE).meaning is Meaning.FORBIDDEN
    except OSError:  # the proxy has tried to connect until our timeout
        is_refused = False
    if is_refused:
        return Finding(_SUBJECT, f"it refuses {_INSIDE}, as it must")
    return Finding(
        _SUBJECT,
        f"it does not refuse {_INSIDE}, though nothing but the proxy judges what a customer's name leads to",
        "Forbid it all addresses that are not public: docs/operators.md, Egress proxy.",
    )


def _tls(settings: "Settings") -> ssl.SSLContext:
    from services.dispatcher.http.tls import client_context

    return client_context(settings.target_ca_file)


class _SilenceError(TimeoutError):
    """The proxy has accepted the connection and does not answer."""


@dataclass(frozen=True, slots=True)
class _Proxy:
    address: ProxyAddress
    context: ssl.SSLContext | None
    patience_s: float

    def ask(self, host: str) -> ProxyAnswer:
        """The proxy's answer to CONNECT. Raises OSError, and _SilenceError when it takes longer than a delivery may."""
        where = (self.address.host, self.address.port)
        with socket.create_connection(where, TIMEOUT_S) as plain, self._secure(plain) as connection:
            connection.sendall(connect_request(self.address, host, 443))
            connection.settimeout(self.patience_s)
            received = b""
            while (answer := read_answer(received)) is None:
                received += _receive(connection)
        return answer

    def _secure(self, plain: socket.socket) -> socket.socket:
        return plain if self.context is None else self.context.wrap_socket(plain, server_hostname=self.address.host)


def _receive(connection: socket.socket) -> bytes:
    try:
        piece = connection.recv(65536)
    except TimeoutError:
        raise _SilenceError from None
    if not piece:
        raise ConnectionResetError("it closes the connection without an answer")
    return piece
