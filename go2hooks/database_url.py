"""The parts of a Postgres connection URL that we read ourselves; libpq reads the rest.

psycopg is imported where it is used: the import takes 0.25 s, which commands without a database save.
"""

import re
from typing import Any, Final, NamedTuple

_PART: Final = re.compile(r"(?:\\.|[^\s\\])+", re.DOTALL)
_SET: Final = re.compile(r"(?:-c\s*|--)([A-Za-z_][\w.-]*)=(.*)", re.DOTALL)


class DatabaseUrl(NamedTuple):
    """A URL without its `options`, and what they set, by lower-case name.

    Poolers refuse `options` at the start of a session, and share a session's settings between clients: so they are set for
    each transaction.
    """

    conninfo: str
    options: dict[str, str]


def is_connection(text: str) -> bool:
    """Whether libpq can read it, and no part of a mistyped password is taken for a host or a port."""
    import psycopg.conninfo  # noqa: PLC0415  # see above

    try:
        parts = psycopg.conninfo.conninfo_to_dict(text)
    except psycopg.Error:
        return False
    ports = str(parts.get("port", "")).split(",")
    return all(port == "" or port.isdecimal() for port in ports) and "@" not in str(parts.get("host", ""))


def read_url(text: str, default_options: str = "") -> DatabaseUrl:
    """Read a URL. `default_options` are used if the URL has none, like libpq's PGOPTIONS. Raises ValueError for other options
    than `-c name=value` and `--name=value`.
    """
    import psycopg.conninfo  # noqa: PLC0415  # see above

    parts: dict[str, Any] = psycopg.conninfo.conninfo_to_dict(text)
    options = str(parts.pop("options", None) or default_options)
    return DatabaseUrl(psycopg.conninfo.make_conninfo(**parts), _read_options(options))


def _read_options(text: str) -> dict[str, str]:
    """Parse options like Postgres: blanks separate them, a backslash escapes the next character."""
    parts = [re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL) for part in _PART.findall(text)]
    found: dict[str, str] = {}
    rest = iter(parts)
    for part in rest:
        match = _SET.fullmatch(part + next(rest, "") if part == "-c" else part)
        if match is None:
            raise ValueError("its options may be -c name=value alone, such as options=-csearch_path%3Dgo2")
        found[match[1].lower().replace("-", "_")] = match[2]
    return found
