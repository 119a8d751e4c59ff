"""A client of the REST API."""

import json
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from go2hooks.core.errors import Go2HooksError, UnavailableError

_PREFIX: Final = "/api/v1"


class ApiRefusedError(Go2HooksError):
    """The API answered with an error. The message is the API's."""

    def __init__(self, status: int, message: str, details: dict[str, str]) -> None:
        super().__init__(" ".join([message, *(f"{field}: {why}" if field else why for field, why in details.items())]))
        self.status = status
        self.details = details  #: what is wrong with each field


class _NoRedirects(HTTPRedirectHandler):
    """Follows no redirect: the key would be sent to another host."""

    def redirect_request(self, *_args: Any, **_options: Any) -> None:
        return None


_OPENER: Final = build_opener(_NoRedirects)


class ApiClient:
    """One account's API. Every call blocks for ten seconds at most."""

    def __init__(self, address: str, key: str) -> None:
        """`address` with or without `/api/v1`. Raises ValueError when it is no http or https address."""
        parts = urlsplit(address)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("it begins with http:// or https:// and a host")
        self.address = address.rstrip("/").removesuffix(_PREFIX) + _PREFIX
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer's envelope.

        Raises ApiRefusedError, and UnavailableError when nothing answers that could be the API.
        """
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.address}{path}", data, self._headers, method=method)  # noqa: S310  # checked above
        try:
            with _OPENER.open(request, timeout=10.0) as response:
                return self._envelope(response.read())
        except HTTPError as error:
            said = self._envelope(error.read()).get("error") or {}
            raise ApiRefusedError(error.code, said.get("message", ""), said.get("details") or {}) from error
        except URLError as error:
            reason = error.reason.strerror if isinstance(error.reason, OSError) else None
            raise UnavailableError(f"The API at {self.address} does not answer: {reason or error.reason}.") from error
        except OSError as error:  # a broken connection, or an answer without an end
            raise UnavailableError(f"The API at {self.address} does not answer: {error}.") from error

    def _envelope(self, answer: bytes) -> dict[str, Any]:
        try:
            envelope = json.loads(answer)
        except ValueError:
            envelope = None
        if not isinstance(envelope, dict) or "success" not in envelope:
            raise UnavailableError(f"What answers at {self.address} is not Go2's API.")
        return envelope
