"""Which headers of its own a webhook may have on its requests. What they say is the customer's; how requests are framed,
read and trusted is not.
"""

import re
from typing import Final

from go2hooks.core.errors import HeaderError

MAX_HEADERS: Final = 20
MAX_NAME_CHARS: Final = 100
MAX_VALUE_CHARS: Final = 1024
MAX_CHARS: Final = 4096  #: of all names and values together: many servers take 8 KiB of headers in all
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
    if len(name) > MAX_NAME_CHARS:
        raise HeaderError(f"has a name of {len(name)} characters; at most {MAX_NAME_CHARS} are allowed")
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
    if not 1 <= len(value) <= MAX_VALUE_CHARS:
        raise HeaderError(f"must have a value of 1 to {MAX_VALUE_CHARS} characters")
    if not _VALUE.fullmatch(value):
        raise HeaderError("must have a value of printable ASCII characters, without a space at either end")


def check_together(names: list[str], chars: int) -> None:
    """Rules about all of them; `chars` of names and values. Raises HeaderError."""
    if len(names) > MAX_HEADERS:
        raise HeaderError(f"must not be more than {MAX_HEADERS}")
    if len({name.lower() for name in names}) != len(names):
        raise HeaderError("must not name a header twice (capitals make no difference)")
    if chars > MAX_CHARS:
        raise HeaderError(f"must not have more than {MAX_CHARS} characters in all")
