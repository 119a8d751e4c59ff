"""The egress proxy that deliveries may have to leave by: what its URL says, what it is asked, what its answers mean.

An answer to CONNECT says either what the proxy found when it tried to reach the receiver, or what the proxy itself
decides or lacks. The first is the receiver's failure, as if we had connected ourselves. The second is ours.
"""

import base64
import re
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

_HOST: Final = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")
_USER_OR_PASSWORD: Final = re.compile(r"[A-Za-z0-9._~!$&()*+,;=%-]+")  # what else there is in them is percent-encoded
_HEAD_LIMIT_BYTES: Final = 16384  # of an answer; a longer one is not a proxy's
_BEGINNING: Final = b"HTTP/1."
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-9][0-9][0-9])(?: [^\r\n]*)?(?:\r?\n|$)")
_END_OF_HEAD: Final = re.compile(rb"\r?\n\r?\n")
_CHALLENGE: Final = re.compile(rb"^proxy-authenticate[ \t]*:", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ProxyAddress:
    """Where the proxy is, and how we identify to it."""

    host: str
    port: int
    is_tls: bool  #: whether the proxy itself is spoken to by TLS
    authorization: str | None = field(repr=False)  #: the value of Proxy-Authorization


def parse_proxy_url(url: str) -> ProxyAddress:
    """Read `http://host:port` or `https://user:password@host:port`. Raises ValueError, which never quotes the URL."""
    try:
        parts = urlsplit(url)
        host, port, user, password = parts.hostname, parts.port, parts.username, parts.password
    except ValueError:  # its own text may hold the password
        host, port = None, None
    if host is None or not port or _HOST.fullmatch(host) is None or parts.scheme not in ("http", "https"):
        raise ValueError(
            "this is no proxy URL: write it as http://user:password@host:3128, or https:// for TLS to the proxy, "
            "with what is special in a password percent-encoded"
        ) from None
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("a proxy URL ends with its port; what is special in a password must be percent-encoded")
    if user is None and password is None:
        return ProxyAddress(host, port, parts.scheme == "https", None)
    if not all(_USER_OR_PASSWORD.fullmatch(part or "") for part in (user, password)) or "%3a" in (user or "").lower():
        raise ValueError(
            "a proxy URL names both a user (without a colon) and a password, or neither; what is special in them must "
            "be percent-encoded"
        )
    pair = f"{unquote(user or '')}:{unquote(password or '')}".encode()
    return ProxyAddress(host, port, parts.scheme == "https", f"Basic {base64.b64encode(pair).decode()}")


def connect_request(proxy: ProxyAddress, host: str, port: int) -> bytes:
    """What asks the proxy for a tunnel to `host`. Raises ValueError for one that would break out of its line."""
    if any(character <= " " or character > "~" for character in host):
        raise ValueError("a host that no request line can hold")
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if proxy.authorization is not None:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


class Meaning(Enum):
    """What an answer to CONNECT says."""

    OPEN = auto()  #: the tunnel stands
    UNREACHABLE = auto()  #: the proxy could not reach the receiver
    CREDENTIALS = auto()  #: it asks for other credentials
    FORBIDDEN = auto()  #: it does not let us go there, or anywhere
    UNEXPECTED = auto()  #: anything else


class ProxyAnswer(NamedTuple):
    """The final answer to CONNECT."""

    meaning: Meaning
    status: int  #: 0 when it is no HTTP
    rest: bytes = b""  #: what came behind its head


_GARBAGE: Final = ProxyAnswer(Meaning.UNEXPECTED, 0)
_BY_STATUS: Final = {
    401: Meaning.CREDENTIALS,  # Tinyproxy, where they are wrong
    403: Meaning.FORBIDDEN,  # Squid
    407: Meaning.FORBIDDEN,  # Smokescreen, which sends no challenge with it
    500: Meaning.UNREACHABLE,  # Tinyproxy
    502: Meaning.UNREACHABLE,  # Smokescreen
    503: Meaning.UNREACHABLE,  # Squid, Envoy, HAProxy
    504: Meaning.UNREACHABLE,  # Smokescreen, Squid
}


def read_answer(received: bytes) -> ProxyAnswer | None:
    """The proxy's final answer, from all that it has sent so far; None when that is not complete.

    An answer's body is of no interest, and a 2xx to CONNECT has none, whatever its headers say (RFC 9110, 9.3.6).
    """
    is_all = len(received) > _HEAD_LIMIT_BYTES
    while received.startswith(_BEGINNING[: len(received)]):
        end = _END_OF_HEAD.search(received)
        if end is None:
            return _GARBAGE if is_all else None
        head, received = received[: end.start()], received[end.end() :]
        line = _STATUS_LINE.match(head)
        if line is None:
            break
        status = int(line[1])
        if status >= 200:  # noqa: PLR2004  # final, not interim
            return ProxyAnswer(meaning(status, is_challenge=bool(_CHALLENGE.search(head))), status, received)
    return _GARBAGE


def meaning(status: int, *, is_challenge: bool) -> Meaning:
    """What a final status says; `is_challenge` when Proxy-Authenticate came with it."""
    if status < 300:  # noqa: PLR2004  # HTTP's success class
        return Meaning.OPEN
    if status == 407 and is_challenge:  # noqa: PLR2004  # Proxy Authentication Required
        return Meaning.CREDENTIALS
    return _BY_STATUS.get(status, Meaning.UNEXPECTED)
