"""Why no answer arrived: every error of the network as a `Failure` and one sentence for the customer.

The sentences name what the receiver's owner can mend. They never hold an address, a port, or an error's own text: those
may reveal something about our networks.
"""

import errno
import ssl
from enum import StrEnum
from typing import Final, NamedTuple

from go2hooks.core.domain.outcome import Failure
from go2hooks.core.errors import ClientIdentityError, SealError
from go2hooks.core.security.egress import Meaning
from services.dispatcher.http.guard import BlockedAddressError


class Phase(StrEnum):
    """What an attempt does at the moment; completes the sentence "Timed out after 10 s while …"."""

    QUEUED = "waiting for a connection"
    LOOKING_UP = "looking up the host name"
    CONNECTING = "connecting"
    PROXY_CONNECTING = "connecting to Go2's own egress proxy"
    PROXY_WAITING = "waiting for Go2's own egress proxy to connect"
    HANDSHAKE = "negotiating TLS"
    WAITING = "waiting for a response"
    READING = "reading the response"


AT_PROXY: Final = frozenset({Phase.PROXY_CONNECTING, Phase.PROXY_WAITING})  #: a timeout in these is our failure


class Cause(NamedTuple):
    """A failure and its sentence."""

    failure: Failure
    message: str


class DnsError(OSError):
    """A host name that gave no address. `temporary` when it might give one later."""

    def __init__(self, *, temporary: bool) -> None:
        super().__init__("DNS lookup failed")
        self.temporary = temporary


class ProxyError(OSError):
    """The egress proxy gave no tunnel to the receiver."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.message)
        self.cause = cause


class RefusedHandshakeError(OSError):
    """The receiver closed the connection when it judged our side of the TLS handshake."""


TLS_FLOOD: Final = "TLS_FLOOD"  #: the `ssl.SSLError` when a receiver sends too many of TLS's own messages
BLOCKED: Final = Cause(Failure.BLOCKED_ADDRESS, "The address of this URL is not allowed.")
REFUSED: Final = Cause(Failure.CONNECTION_REFUSED, "The receiver refused the connection.")
RESET: Final = Cause(Failure.CONNECTION_ERROR, "The receiver reset the connection.")
CLOSED_SILENT: Final = Cause(Failure.CONNECTION_ERROR, "The receiver closed the connection without a response.")
CLOSED_EARLY: Final = Cause(Failure.CONNECTION_ERROR, "The connection was closed before the response was complete.")
UNREACHABLE: Final = Cause(Failure.CONNECTION_ERROR, "The receiver could not be reached.")
SHUT_DOWN: Final = Cause(Failure.CONNECTION_ERROR, "The attempt was interrupted.")
NOT_HTTP: Final = Cause(Failure.INVALID_RESPONSE, "The response is not valid HTTP/1.1.")
UPGRADE: Final = Cause(Failure.INVALID_RESPONSE, "The receiver tried to switch to another protocol (101).")
HEAD_TOO_LARGE: Final = Cause(Failure.INVALID_RESPONSE, "The response's header section is too large.")
TOO_MANY_INTERIM: Final = Cause(Failure.INVALID_RESPONSE, "The receiver sent too many informational (1xx) responses.")
PROXY_AWAY: Final = Cause(
    Failure.PROXY_ERROR, "Go2's own egress proxy could not be reached; nothing was sent to the receiver."
)
PROXY_TLS: Final = Cause(
    Failure.PROXY_ERROR, "TLS with Go2's own egress proxy failed; nothing was sent to the receiver."
)
PROXY_CLOSED: Final = Cause(Failure.PROXY_ERROR, "Go2's own egress proxy closed the connection without an answer.")
PROXY_WITHOUT_TLS: Final = Cause(
    Failure.PROXY_ERROR, "The reference sender sends no plain http through Go2's own egress proxy."
)
PROXY_GARBAGE: Final = Cause(Failure.PROXY_ERROR, "What answers as Go2's own egress proxy is none.")
INSIDE: Final = Cause(Failure.INTERNAL_ERROR, "The attempt failed inside Go2.")
UNSENDABLE: Final = Cause(Failure.INVALID_URL, "The URL cannot be written as an HTTP request.")

_PROXY_CREDENTIALS: Final = Cause(
    Failure.PROXY_ERROR, "Go2's own egress proxy refused Go2's credentials; nothing was sent to the receiver."
)
_PROXY_FORBIDS: Final = Cause(Failure.PROXY_ERROR, "Go2's own egress proxy does not let this delivery go there.")
_DNS_PERMANENT: Final = Cause(Failure.DNS_ERROR, "The host name does not exist or has no address.")
_DNS_TEMPORARY: Final = Cause(Failure.DNS_ERROR, "The DNS lookup of the host name failed.")
_TLS_CLOSED: Final = Cause(Failure.TLS_ERROR, "The receiver closed the connection during the TLS handshake.")
_TLS_OTHER: Final = Cause(Failure.TLS_ERROR, "TLS could not be negotiated with the receiver.")

_TLS_REFUSED: Final = Cause(
    Failure.TLS_ERROR,
    "The receiver closed the connection at the end of the TLS handshake; it may ask for another client certificate.",
)
_KEY_SHUT: Final = Cause(Failure.SECRET_UNAVAILABLE, "The client certificate's private key could not be read.")
_IDENTITY_UNFIT: Final = Cause(Failure.TLS_ERROR, "The webhook's client certificate cannot be used.")

_UNREACHABLE_ERRNOS: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN})
_OUR_ERRNOS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_RESET_ERRNOS: Final = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.ESHUTDOWN})

# OpenSSL's X509_V_ERR_* codes, as SSLCertVerificationError.verify_code carries them.
_CERTIFICATE_FAULTS: Final = {
    9: "The TLS certificate is not valid yet.",
    10: "The TLS certificate has expired.",
    18: "The TLS certificate is self-signed.",
    19: "The TLS certificate chain ends in an unknown self-signed certificate.",
    20: "The TLS certificate was issued by an unknown authority, or an intermediate certificate is missing.",
    21: "The TLS certificate cannot be verified: an intermediate certificate is missing.",
    23: "The TLS certificate has been revoked.",
    26: "The TLS certificate is not meant for servers.",
    62: "The TLS certificate is for another host name.",
    64: "The TLS certificate is for another IP address.",
    66: "The TLS certificate's key is too short.",
    67: "A key in the TLS certificate chain is too short.",
    68: "The TLS certificate chain is signed with a hash that is too weak.",
    79: "The TLS certificate chain holds an issuer that is no certificate authority.",
}
_CERTIFICATE_OTHER: Final = "The TLS certificate is not trusted."

_CLIENT_REFUSED: Final = "The receiver did not accept the TLS client certificate, or got none and asks for one."

# Substrings of SSLError.reason; OpenSSL's releases spell some of them with different prefixes.
_TLS_REASONS: Final = (
    ("PROTOCOL_VERSION", "The receiver offers no TLS version that is accepted (1.2 or later)."),
    ("UNSUPPORTED_PROTOCOL", "The receiver offers no TLS version that is accepted (1.2 or later)."),
    ("WRONG_VERSION_NUMBER", "The receiver does not speak TLS on this port."),
    ("PACKET_LENGTH", "The receiver does not speak TLS on this port."),
    ("HTTP_REQUEST", "The receiver does not speak TLS on this port."),
    ("CERTIFICATE_REQUIRED", "The receiver asks for a TLS client certificate."),
    ("ALERT_UNKNOWN_CA", "The receiver does not know the authority that issued the TLS client certificate."),
    ("ALERT_CERTIFICATE_EXPIRED", "The receiver holds the TLS client certificate to have expired."),
    ("ALERT_CERTIFICATE_REVOKED", "The receiver holds the TLS client certificate to be revoked."),
    ("ALERT_BAD_CERTIFICATE", _CLIENT_REFUSED),
    ("ALERT_CERTIFICATE_UNKNOWN", _CLIENT_REFUSED),
    ("ALERT_UNSUPPORTED_CERTIFICATE", _CLIENT_REFUSED),
    ("ALERT_ACCESS_DENIED", _CLIENT_REFUSED),
    ("ALERT_DECRYPT_ERROR", _CLIENT_REFUSED),
    (  # TLS 1.2 has one alert for both
        "HANDSHAKE_FAILURE",
        (
            "The receiver refused the TLS handshake: "
            "it shares no cipher or curve with the sender, or asks for a client certificate."
        ),
    ),
    ("UNRECOGNIZED_NAME", "The receiver has no TLS certificate for this host name."),
    ("UNEXPECTED_EOF", _TLS_CLOSED.message),
    (TLS_FLOOD, "The receiver sent too many TLS messages that are no response."),
)


def timeout(timeout_s: float, phase: Phase) -> Cause:
    failure = Failure.PROXY_ERROR if phase in AT_PROXY else Failure.TIMEOUT
    return Cause(failure, f"Timed out after {timeout_s:g} s while {phase}.")


def explain_proxy(error: OSError) -> Cause:
    """Why there is no connection to the egress proxy."""
    if error.errno in _OUR_ERRNOS:
        return INSIDE
    return PROXY_TLS if isinstance(error, ssl.SSLError) else PROXY_AWAY


def refused_by_proxy(meaning: Meaning, status: int) -> Cause:
    """Why the egress proxy gave no tunnel. The receiver's failure only where the proxy says that it tried."""
    match meaning:
        case Meaning.UNREACHABLE:
            message = f"The receiver could not be reached: the egress proxy on the way there answered {status}."
            return Cause(Failure.CONNECTION_ERROR, message)
        case Meaning.CREDENTIALS:
            return _PROXY_CREDENTIALS
        case Meaning.FORBIDDEN:
            return _PROXY_FORBIDS
        case _ if status >= 300:  # noqa: PLR2004  # no success
            return Cause(
                Failure.PROXY_ERROR, f"Go2's own egress proxy answered {status}; nothing was sent to the receiver."
            )
        case _:
            return PROXY_GARBAGE


def explain(error: BaseException, phase: Phase) -> Cause:  # noqa: PLR0911  # one per clause
    """What `error`, raised while in `phase`, means. Every exception has an answer."""
    match error:
        case BlockedAddressError():
            return BLOCKED
        case ProxyError():
            return error.cause
        case DnsError():
            return _DNS_TEMPORARY if error.temporary else _DNS_PERMANENT
        case ssl.SSLError():
            return _explain_tls(error)
        case RefusedHandshakeError():
            return _TLS_REFUSED
        case SealError():
            return _KEY_SHUT
        case ClientIdentityError():
            return _IDENTITY_UNFIT
        case _ if phase is Phase.HANDSHAKE:
            return _TLS_CLOSED
        case OSError():
            return _explain_os(error)
        case _:
            return UNREACHABLE if phase is Phase.CONNECTING else CLOSED_EARLY


def _explain_tls(error: ssl.SSLError) -> Cause:
    if isinstance(error, ssl.SSLCertVerificationError):
        return Cause(Failure.TLS_ERROR, _CERTIFICATE_FAULTS.get(error.verify_code, _CERTIFICATE_OTHER))
    reason: str = getattr(error, "reason", None) or str(error).upper()  # only OpenSSL's own errors have a reason
    for part, message in _TLS_REASONS:
        if part in reason:
            return Cause(Failure.TLS_ERROR, message)
    return _TLS_OTHER


def _explain_os(error: OSError) -> Cause:
    if error.errno in _OUR_ERRNOS:
        return INSIDE
    if error.errno == errno.ECONNREFUSED or isinstance(error, ConnectionRefusedError):
        return REFUSED
    if error.errno in _RESET_ERRNOS or isinstance(error, ConnectionError):
        return RESET
    return UNREACHABLE
