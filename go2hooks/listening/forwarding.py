"""Forward a delivery to another server, and return that server's answer."""

import http.client
from typing import Final
from urllib.parse import SplitResult, urlsplit

from go2hooks.core.errors import UnavailableError
from go2hooks.listening.receiver import LocalReply, Received

_TIMEOUT_S: Final = 10.0  # a dispatcher waits no longer
#: Headers of one connection or of a body's framing (RFC 9110, 7.6.1).
_OF_A_CONNECTION: Final = frozenset(
    ("connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade")
)


class Forwarder:
    """Sends to one address. Threads may share it."""

    def __init__(self, url: str) -> None:
        """Raises ValueError when it is no http or https address."""
        self._target = _read(url)
        self.url = url

    def leads_to(self, host: str, port: int) -> bool:
        """Whether the target is the listener itself."""
        own = {host, "localhost", "127.0.0.1", "::1"}
        return self._target.hostname in own and _port(self._target) == port

    def forward(self, received: Received) -> LocalReply:
        """POST the same body and headers. Returns the answer; raises UnavailableError when none came within ten seconds."""
        kind = http.client.HTTPSConnection if self._target.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._target.hostname or "", self._target.port, timeout=_TIMEOUT_S)
        try:
            return self._post(connection, received)
        except TimeoutError:
            raise UnavailableError(f"{self.url} did not answer within {_TIMEOUT_S:g} s") from None
        except http.client.HTTPException as error:
            raise UnavailableError(f"{self.url} did not answer in HTTP: {error!r}") from error
        except OSError as error:
            raise UnavailableError(f"{self.url} cannot be reached: {error.strerror or error}") from error
        finally:
            connection.close()

    def _post(self, connection: http.client.HTTPConnection, received: Received) -> LocalReply:
        path = f"{self._target.path or '/'}{'?' if self._target.query else ''}{self._target.query}"
        connection.putrequest("POST", path, skip_accept_encoding=True)
        for name, value in received.headers_as_sent:
            if name.lower() not in _OF_A_CONNECTION:
                connection.putheader(name, value.encode("latin-1"))
        connection.putheader("Content-Length", str(len(received.body)))
        connection.endheaders(received.body)
        answer = connection.getresponse()
        headers = tuple((name, value) for name, value in answer.getheaders() if name.lower() not in _OF_A_CONNECTION)
        return LocalReply(answer.status, headers, answer.read(1_048_576))


def _read(url: str) -> SplitResult:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("it begins with http:// or https:// and a host")
    _port(parts)
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("percent-encode what is not ASCII")
    return parts


def _port(parts: SplitResult) -> int:
    """Raises ValueError when it is out of range."""
    return parts.port or (443 if parts.scheme == "https" else 80)
