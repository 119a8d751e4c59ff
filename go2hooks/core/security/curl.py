"""A signed request as a command for a terminal, whatever is in it."""

import shlex
from typing import Final

from go2hooks.core.security.request import SignedRequest

_NAMED: Final = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def curl_command(request: SignedRequest, url: str) -> str:
    """Sends the very bytes. For bash, zsh and ksh.

    The body comes from a pipe: an argument could be too long, and curl would read a file if it began with `@`.
    """
    headers = " \\\n    ".join(f"-H {shell_word(_header(name, value))}" for name, value in request.headers)
    return f"""printf %s {shell_word(request.body.decode())} |
  curl --globoff --path-as-is {shell_word(url)} \\
    {headers} \\
    --data-binary @-"""


def shell_word(text: str) -> str:
    """One word, which a shell takes as it is.

    Unprintable characters are escaped: a terminal would take a pasted control character for a key that was pressed.
    """
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(map(_escaped, text)) + "'"


def _escaped(char: str) -> str:
    if char in _NAMED:
        return _NAMED[char]
    return char if char.isprintable() else "".join(f"\\x{byte:02x}" for byte in char.encode())


def _header(name: str, value: str) -> str:
    return f"{name}: {value}" if value else f"{name};"  # curl takes `name:` for one to leave out
