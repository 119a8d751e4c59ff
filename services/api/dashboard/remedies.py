"""What to do about a failed attempt: the remedy for each recorded failure."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urljoin

from go2hooks.core.domain.outcome import Failure, SkipReason

_NOT_YOURS: Final = "This is a fault on our side, not of your receiver: it does not count against the webhook. "
_CHAIN: Final = (
    "Have the server send the whole chain (often a file named fullchain.pem): its own certificate, then each issuer's."
)
_PUBLIC: Final = "Use a certificate of a public authority, such as Let's Encrypt."
_CLIENT: Final = (
    "Give the webhook the client certificate that the receiver expects, and have the receiver trust its issuer."
)
_LOAD: Final = "Look at the receiver's load and logs at this time."

# By a part of the recorded message, since one code has many causes. The first match counts.
_BY_SENTENCE: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    Failure.TLS_ERROR: (
        ("client certificate expired at", "Give the webhook a new client certificate; then send this again."),
        ("certificate has expired", "Renew the receiver's certificate, reload its server, and see why it was not renewed by itself."),
        ("certificate is not valid yet", "Check the clock of the machine that issued the receiver's certificate, or wait until it is valid."),
        ("certificate is self-signed", _PUBLIC),
        ("unknown self-signed certificate", _PUBLIC),
        ("intermediate certificate is missing", _CHAIN + " " + _PUBLIC.replace("Use", "If that is not it, use")),
        ("certificate has been revoked", "Get the receiver a new certificate: its authority withdrew this one."),
        ("not meant for servers", "Get the receiver a certificate whose extended key usage has server authentication."),
        ("for another host name", "Get a certificate that names the host of the webhook's URL, or use a URL with the host that it names."),
        ("for another IP address", "Use the host name that the certificate names in the webhook's URL, not an IP address."),
        ("key is too short", "Get the receiver a certificate with an RSA key of 2,048 bits at least, or an elliptic curve key."),
        ("key in the TLS certificate chain is too short", "Get the receiver a certificate from an authority with keys of today's length."),
        ("hash that is too weak", "Get the receiver a certificate that is signed with SHA-256 or better."),
        ("no certificate authority", _CHAIN),
        ("certificate is not trusted", _PUBLIC),
        ("no TLS version", "Switch on TLS 1.2 or 1.3 at the receiver."),
        ("does not speak TLS on this port", "Check the port in the webhook's URL: plain http answers there. TLS is mostly at 443."),
        ("asks for a TLS client certificate", _CLIENT),
        ("does not know the authority", _CLIENT),
        ("client certificate to have expired", "Give the webhook a new client certificate."),
        ("client certificate to be revoked", "Give the webhook a new client certificate."),
        ("did not accept the TLS client certificate", _CLIENT),
        ("another client certificate", _CLIENT),
        ("webhook's client certificate cannot be used", "Put the webhook's client certificate and its key again."),
        ("no TLS certificate for this host name", "Set up a certificate for this host name at the receiver or at the proxy in front of it."),
        ("shares no cipher", "Allow today's ciphers and curves at the receiver. " + _CLIENT.replace("Give", "If it asks for one: give", 1)),
        ("during the TLS handshake", "Check that the receiver serves TLS for this host name, and that no firewall ends the connection."),
        ("too many TLS messages", "Look at what answers at this address: no usual server does this."),
        ("could not be negotiated", "Test the receiver's TLS with `openssl s_client -connect HOST:PORT -servername HOST`."),
    ),
    Failure.TIMEOUT: (
        ("waiting for a connection", "Earlier requests still wait for their answers. Returns faster, or raise the webhook's limit of requests at once."),
        ("looking up the host name", "The name servers of this domain are slow or away: check them."),
        ("connecting", "Something drops the packets, mostly a firewall: let our requests through to this host and port."),
        ("negotiating TLS", "The receiver takes connections and then does nothing: it may be out of workers. " + _LOAD),
        ("waiting for a response", "Answer 2xx as soon as the event is stored, and do the work afterwards, from a queue."),
        ("reading the response", "Send the answer's head at once: nothing but its status matters here."),
    ),
    Failure.DNS_ERROR: (
        ("does not exist", "Check the host name in the webhook's URL for typing errors, and that it has an A or AAAA record in public DNS."),
        ("lookup", "Its name servers did not answer: check them (DNSSEC, too), with `dig HOST`."),
    ),
    Failure.CONNECTION_ERROR: (
        ("reset the connection", "The receiver, or a proxy or firewall before it, cut the connection: mostly a crash or a restart. " + _LOAD),
        ("without a response", "The receiver took the request and hung up: mostly a crash in its code, or a worker that was killed. " + _LOAD),
        ("before the response was complete", "The receiver hung up in the middle of its answer: mostly a crash in its code. " + _LOAD),
        ("egress proxy on the way", "Our proxy got no connection: check that the receiver runs, and can be reached from the internet."),
        ("could not be reached", "There is no route to the receiver: check that it is up and has a public address."),
        ("was interrupted", "Our own process ended meanwhile. Nothing is to be done: it is tried again."),
    ),
    Failure.INVALID_RESPONSE: (
        ("header section is too large", "Send fewer or shorter headers (cookies, often) in the answer."),
        ("another protocol", "This looks like a WebSocket endpoint: use the URL of one that takes a POST."),
        ("informational", "Send the final answer: one status of 2xx is enough."),
        ("not valid HTTP", "Something else than a web server answers at this host and port: check the webhook's URL."),
    ),
    Failure.INVALID_URL: (
        ("was deleted", "Nothing is to be done: the webhook is gone."),
        ("", "Correct the webhook's URL."),
    ),
}  # fmt: skip

_BY_CODE: Final[dict[str, str]] = {
    Failure.GONE: "The webhook was disabled, as the receiver asked. If it is to get events again, have it answer 2xx, then enable the webhook.",
    Failure.CONNECTION_REFUSED: "Nothing listens at this host and port: start the receiver, check the port, or open it in the firewall.",
    Failure.BLOCKED_ADDRESS: "The host name leads to a private or reserved address, where we send nothing. Use a host with a public address; to develop, use `go2hooks listen`.",
    Failure.SECRET_UNAVAILABLE: _NOT_YOURS + "If it goes on, rotate the webhook's secret.",
    Failure.INTERNAL_ERROR: _NOT_YOURS + "It is tried again; tell your operator if it goes on.",
    Failure.PROXY_ERROR: _NOT_YOURS + "It is tried again; tell your operator if it goes on.",
    Failure.RETRY_NOT_KEPT: "See what failed, and mend it; then send this again by hand: it is not tried again by itself.",
    SkipReason.DISABLED: "Enable the webhook; then send this again, or replay all that was skipped.",
    SkipReason.DELETED: "Nothing is to be done: the webhook is gone.",
    SkipReason.UNSUBSCRIBED: "If you want such events, subscribe the webhook to them, and replay what was skipped.",
}  # fmt: skip

_VERIFYING: Final = (
    "Check that the receiver verifies with this webhook's present secret, over the body as it came. If a login or a firewall stands "
    "before it, let our requests pass, or give the webhook a header with the credentials."
)
_BEHIND: Final = (
    "A proxy in front of the receiver got no answer from it: check that the application runs, and answers in time."
)
_BY_STATUS: Final = {
    304: "The receiver took this for a read that it has in its cache: have it answer a POST with 2xx.",
    400: "The receiver did not like the request: its answer and its log say why. Parse the body as JSON after you have verified it.",
    401: _VERIFYING,
    403: _VERIFYING + " Check that a CSRF protection leaves this path out.",
    404: "Nothing is at this path: correct the webhook's URL, or deploy the route.",
    405: "This path takes no POST: correct the webhook's URL, or the receiver's route.",
    406: "Have the receiver answer whatever the Accept header says: nothing but the status is read.",
    408: "The receiver gave up waiting for the request's body: mostly it is overloaded. " + _LOAD,
    409: "If it means that this delivery was there already, answer 2xx: the same delivery may come twice.",
    413: "Raise the receiver's limit for a body (nginx: client_max_body_size), or that of a proxy before it.",
    415: "Have the receiver take application/json.",
    421: "The server does not serve this host name: correct its configuration or the webhook's URL.",
    422: "The receiver understood the body and refused it: its answer and its log say why.",
    426: "The receiver wants another protocol than HTTP/1.1: have it, or the proxy before it, accept that.",
    429: "Give the webhook a rate limit that the receiver can take. Its Retry-After is kept to, up to an hour.",
    431: "Raise the receiver's limit for headers, or give the webhook fewer of its own.",
    500: "The receiver's code failed: its log at this time says where. Afterwards, send this again.",
    501: "The receiver does not know the method POST: correct the webhook's URL.",
    502: _BEHIND,
    503: "The receiver is overloaded or being maintained. Its Retry-After is kept to, up to an hour. " + _LOAD,
    504: _BEHIND + " Better: answer 2xx as soon as the event is stored, and work afterwards.",
    507: "The receiver's disk is full: make room.",
    511: "A network portal stands before the receiver: its network wants somebody to log in.",
}  # fmt: skip
_CLIENT_ERROR: Final = "The receiver refuses the request: its answer and its log say why."
_SERVER_ERROR: Final = "The receiver, or a proxy before it, failed: look at its log at this time."
_UNKNOWN: Final = "A receiver answers a delivery that it took with a status of 2xx: look at what answers at this URL."


def remedy(attempt: Mapping[str, Any], url: str) -> str | None:
    """The remedy for an attempt as the API shows it; None for a success.

    `url` is the webhook's, which a redirect may be relative to.
    """
    code, message = attempt["errorCode"], attempt["errorMessage"] or ""
    if code is None:
        return None
    if code == Failure.REDIRECT:
        return _of_redirect(attempt["responseHeaders"]["location"], url)
    if code == Failure.BAD_STATUS:
        return _of_status(attempt["statusCode"])
    found = (step for part, step in _BY_SENTENCE.get(code, ()) if part in message)
    return next(found, None) or _BY_CODE.get(code)


def _of_redirect(location: str | None, url: str) -> str:
    if not location:
        return "Use the URL that the receiver really answers at: deliveries follow no redirect."
    try:
        target = urljoin(url, location)
    except ValueError:  # no URL at all
        target = location
    if target.startswith("http:") and url.startswith("https:"):
        return f"The receiver redirects to {target}, which is not encrypted: have it answer at an https URL itself."
    return f"The receiver redirects to {target}: if that is the right place, use that URL for the webhook."


def _of_status(status: int | None) -> str:
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status is None or not HTTPStatus.BAD_REQUEST <= status < 600:  # noqa: PLR2004  # the end of HTTP's error classes
        return _UNKNOWN
    return _SERVER_ERROR if status >= HTTPStatus.INTERNAL_SERVER_ERROR else _CLIENT_ERROR
