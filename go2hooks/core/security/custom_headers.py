"""Which headers of its own a webhook may add to its requests.

What they say is up to the customer; how requests are framed, read and trusted is not.
"""

import re
from dataclasses import dataclass
from typing import Final

from go2hooks.core.errors import HeaderError


@dataclass(frozen=True, slots=True)
class HeaderLimits:
    """How many headers, and how long. Many servers take 8 KiB of headers in all, ours included."""

    headers: int = 20
    name_chars: int = 100
    value_chars: int = 1024  #: room for a bearer token
    chars: int = 4096  #: of all names and values together


LIMITS: Final = HeaderLimits()
_NAMED: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TEXT: Final = r"[!-~]([ -~]*[!-~])?"
NAME_PATTERN: Final = f"^{_NAMED}$"
VALUE_PATTERN: Final = f"^{_TEXT}$"

_NAME: Final = re.compile(_NAMED)
_VALUE: Final = re.compile(_TEXT)
_OURS: Final = frozenset({"host", "user-agent", "content-type", "content-length", "content-encoding"})
_OUR_PREFIXES: Final = ("x-webhook-", "webhook-", "accept")
_HOP_BY_HOP: Final = frozenset({"connection", "transfer-encoding", "te", "upgrade", "keep-alive", "trailer", "expect"})
_SIGNATURE_LIKE: Final = ("signature", "hmac")


def check_name(name: str) -> None:
    """Raises HeaderError, whose message names the rule."""
    if len(name) > LIMITS.name_chars:
        raise HeaderError(f"has a name of {len(name)} characters; at most {LIMITS.name_chars} are allowed")
    if not _NAME.fullmatch(name):
        raise HeaderError("must have a name of letters, digits and !#$%&'*+-.^_`|~ alone (an HTTP token)")
    lower = name.lower()
    if lower in _OURS or lower.startswith(_OUR_PREFIXES):
        raise HeaderError("is set by Go2 Webhooks itself")
    if lower in _HOP_BY_HOP or lower.startswith("proxy-"):
        raise HeaderError("is hop-by-hop: it concerns the connection, not the receiver")
    if any(word in lower for word in _SIGNATURE_LIKE):
        raise HeaderError("is named like a signature, which only Go2 Webhooks sets")


def check_value(value: str) -> None:
    """Raises HeaderError. Its message holds nothing of the value."""
    if not 1 <= len(value) <= LIMITS.value_chars:
        raise HeaderError(f"must have a value of 1 to {LIMITS.value_chars} characters")
    if not _VALUE.fullmatch(value):
        raise HeaderError("must have a value of printable ASCII characters, without a space at either end")


def check_together(names: list[str], chars: int) -> None:
    """Rules about all of them; `chars` is the length of names and values together. Raises HeaderError."""
    if len(names) > LIMITS.headers:
        raise HeaderError(f"must not be more than {LIMITS.headers}")
    if len({name.lower() for name in names}) != len(names):
        raise HeaderError("must not name a header twice (capitals make no difference)")
    if chars > LIMITS.chars:
        raise HeaderError(f"must not have more than {LIMITS.chars} characters in all")
