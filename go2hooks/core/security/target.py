"""Where a webhook's URL points, read the way browsers read URLs, and what we refuse.

`parse_target` reads a URL that was accepted before; `check_target` holds the further rules for accepting one. Neither
resolves names: what a name points to is judged at the socket, at every attempt.
"""

import ipaddress
import re
from collections.abc import Collection
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import quote

import idna

from go2hooks.core.errors import TargetError
from go2hooks.core.security.addresses import AddressPolicy

MAX_URL_CHARS: Final = 2048  #: a request line of common servers holds 8 KiB

#: Ports that speak something else than HTTP: the "bad ports" of the WHATWG's Fetch standard.
BAD_PORTS: Final = frozenset(
    (
        *(0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104),
        *(109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526),
        *(530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659),
        *(4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080),
    )
)

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_URL: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<rest>[^#]*)")
_FORBIDDEN: Final = re.compile(r"[\x00-\x20\x7f-\x9f\ud800-\udfff\\]")
_AUTHORITY: Final = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]*))?")
_SAFE_IN_PATH: Final = "/?%!$&'()*+,;=:@-._~[]|"  # the rest is percent-encoded, as browsers do
_MAX_PORT: Final = 65535

_MAX_NAME_CHARS: Final = 253  # RFC 1035, as is the next
_MAX_LABEL_CHARS: Final = 63
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_JOINERS: Final = "\u200c\u200d"  # invisible, and allowed between a few letters alone
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")  # a last label like this makes the host an IPv4 address
_IPV4_PARTS: Final = 4
_INTERNAL_SUFFIXES: Final = frozenset(("localhost", "local", "internal", "invalid", "onion"))
_INTERNAL_DOMAIN: Final = ("home", "arpa")


class Target(NamedTuple):
    """A URL taken apart for the sender."""

    scheme: str  #: http or https
    host: str  #: lower-case ASCII name, or an IP address in its usual spelling, IPv6 without brackets
    port: int
    path: str  #: the request target: path and query, percent-encoded
    authority: str  #: the value of the Host header

    @property
    def address(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The IP address, when the host is one."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None


@lru_cache(10_000)  # of some hundred bytes each
def parse_target(url: str) -> Target:
    """Take an http or https URL apart. Raises TargetError when it is malformed or holds credentials."""
    if len(url) > MAX_URL_CHARS:
        raise TargetError(f"The URL is {len(url)} characters long; at most {MAX_URL_CHARS} are allowed.")
    if _FORBIDDEN.search(url):
        raise TargetError("The URL must not contain spaces, control characters or backslashes.")
    match = _URL.fullmatch(url.partition("#")[0])
    if match is None:
        raise TargetError("The URL must be complete, such as https://example.com/webhooks.")
    scheme = match["scheme"].lower()
    if scheme not in _DEFAULT_PORTS:
        raise TargetError("The URL must start with https://.")
    host, port = _read_authority(match["authority"], _DEFAULT_PORTS[scheme])
    name = f"[{host}]" if ":" in host else host
    authority = name if port == _DEFAULT_PORTS[scheme] else f"{name}:{port}"
    return Target(scheme, host, port, _request_target(match["rest"]), authority)


def check_target(url: str, policy: AddressPolicy, deny_ports: Collection[int] = BAD_PORTS) -> Target:
    """Take apart a URL that a customer wants deliveries sent to. Raises TargetError when the rules forbid it.

    A policy that allows insecure targets permits http and internal names too, for development; one that allows networks
    permits internal names, since the socket judges what they point to.
    """
    target = parse_target(url)
    if target.scheme != "https" and not policy.allow_insecure:
        raise TargetError("The URL must start with https://.")
    if target.port in deny_ports:
        raise TargetError(f"The URL must not use port {target.port}: deliveries there are not allowed.")
    address = target.address
    if address is not None:
        if not policy.permits(address):
            raise TargetError(f"The URL must not point to {address}: it is not a public address.")
    elif _is_internal(target.host) and not (policy.allow_insecure or policy.allow):
        raise TargetError(f"The URL must name a public host; {target.host} is not one.")
    return target


def _read_authority(text: str, default_port: int) -> tuple[str, int]:
    if "@" in text:
        raise TargetError("The URL must not contain a user name or password.")
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        raise TargetError("The URL's host or port is malformed.")
    return _read_host(match["host"]), _read_port(match["port"], default_port)


def _read_port(digits: str | None, default_port: int) -> int:
    if not digits:
        return default_port
    if len(digits) > len(str(_MAX_PORT)) or int(digits) > _MAX_PORT:
        raise TargetError(f"The URL's port must be between 1 and {_MAX_PORT}.")
    return int(digits)


def _read_host(text: str) -> str:
    if text.startswith("["):
        return _read_ipv6(text[1:-1])
    name = (text if text.isascii() else _to_ascii(text)).lower().removesuffix(".")
    if not name:
        raise TargetError("The URL has no host.")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return _read_ipv4(labels)
    if len(name) > _MAX_NAME_CHARS or not all(map(_is_label, labels)):
        raise TargetError("The URL's host is not a valid domain name.")
    return name


def _to_ascii(text: str) -> str:
    """An internationalised name in punycode, by UTS 46; full-width letters and digits become the plain ones."""
    try:
        mapped = idna.uts46_remap(text, std3_rules=False, transitional=False)
        return ".".join(map(_to_punycode, mapped.split(".")))
    except UnicodeError:  # idna's own errors are such
        raise TargetError("The URL's host is not a valid international domain name.") from None


def _to_punycode(label: str) -> str:
    """A mapped label. Not by `idna.encode`: IDNA 2008 refuses emoji, underscores and much else that browsers accept.

    Nor by the rules for text from right to left: they ask for a character's properties, and each Python knows others.
    """
    if label.isascii():
        return label
    if label.startswith("xn--") or len(label) > _MAX_LABEL_CHARS:  # long ones would take punycode seconds
        raise idna.IDNAError
    idna.check_initial_combiner(label)
    if not all(idna.valid_contextj(label, index) for index, char in enumerate(label) if char in _JOINERS):
        raise idna.IDNAError
    return "xn--" + label.encode("punycode").decode("ascii")


def _is_label(label: str) -> bool:
    if _LABEL.fullmatch(label) is None:
        return False
    if not label.startswith("xn--"):
        return True
    try:
        return not label[4:].encode().decode("punycode").isascii()
    except (UnicodeError, OverflowError):
        return False


def _read_ipv6(text: str) -> str:
    if "%" in text:
        raise TargetError("The URL's IPv6 address must not have a zone.")
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        raise TargetError("The URL's IPv6 address is malformed.") from None


def _read_ipv4(labels: list[str]) -> str:
    """Up to four decimal, octal or hexadecimal numbers, the last of which fills what is left: 127.1 is 127.0.0.1."""
    if not all(map(_NUMBER.fullmatch, labels)):
        raise TargetError("The URL's IPv4 address is malformed.")
    numbers = [_read_number(label) for label in labels]
    *leading, last = numbers
    room = 256 ** (_IPV4_PARTS + 1 - len(numbers)) if len(numbers) <= _IPV4_PARTS else 0
    if last >= room or any(number > 255 for number in leading):  # noqa: PLR2004  # a byte
        raise TargetError("The URL's IPv4 address is malformed.")
    value = sum(number << 8 * (_IPV4_PARTS - 1 - index) for index, number in enumerate(leading))
    return str(ipaddress.IPv4Address(value + last))


def _read_number(label: str) -> int:
    try:
        return int(label[2:] or "0", 16) if label.startswith("0x") else int(label, 8 if label.startswith("0") else 10)
    except ValueError:
        raise TargetError("The URL's IPv4 address is malformed.") from None


def _is_internal(host: str) -> bool:
    labels = host.split(".")
    return len(labels) == 1 or labels[-1] in _INTERNAL_SUFFIXES or tuple(labels[-2:]) == _INTERNAL_DOMAIN


def _request_target(rest: str) -> str:
    encoded = quote(rest, safe=_SAFE_IN_PATH)
    return encoded if encoded.startswith("/") else "/" + encoded
