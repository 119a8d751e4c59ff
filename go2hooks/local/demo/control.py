"""The REST API, as a customer uses it."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from go2hooks.core.errors import UnavailableError
from go2hooks.local.demo.verdict import History

_TIMEOUT_S: Final = 10.0
_PER_PAGE: Final = 100


class Control:
    """One account's API. Every method blocks, up to ten seconds a call, and raises UnavailableError."""

    def __init__(self, api: str, key: str) -> None:
        self._api = api
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def create(self, name: str, url: str, events: Sequence[str]) -> dict[str, Any]:
        """The new webhook, its secret included."""
        webhook: dict[str, Any] = self._call("POST", "/webhooks", {"name": name, "url": url, "events": list(events)})[
            "data"
        ]
        return webhook

    def history(self, webhook_id: str) -> History:
        """The webhook, and all its deliveries as they are now."""
        webhook = self._call("GET", f"/webhooks/{webhook_id}")["data"]
        return History(webhook, {shown["id"]: shown for shown in self._deliveries(webhook_id)})

    def is_active(self, webhook_id: str) -> bool:
        active: bool = self._call("GET", f"/webhooks/{webhook_id}")["data"]["isActive"]
        return active

    def _deliveries(self, webhook_id: str) -> Iterator[dict[str, Any]]:
        cursor: str | None = ""
        while cursor is not None:
            query = urlencode({"perPage": _PER_PAGE} | ({"cursor": cursor} if cursor else {}))
            page = self._call("GET", f"/webhooks/{webhook_id}/deliveries?{query}")
            yield from page["data"]
            cursor = page["meta"]["nextCursor"]

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self._api}{path}", data, self._headers, method=method)  # noqa: S310  # http, our own stack
        try:
            with urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310  # as above
                answer: dict[str, Any] = json.load(response)
        except HTTPError as error:
            raise UnavailableError(f"{method} {path} answered {error.code}: {error.read().decode()}") from error
        except URLError as error:
            raise UnavailableError(f"The API does not answer: {error.reason}") from error
        return answer


def routed_webhooks(metrics_url: str) -> int:
    """How many webhooks the router knows. Raises UnavailableError."""
    try:
        with urlopen(metrics_url, timeout=_TIMEOUT_S) as response:  # noqa: S310  # http, our own stack
            lines: list[str] = response.read().decode().splitlines()
    except URLError as error:
        raise UnavailableError(f"The router does not answer: {error.reason}") from error
    found = (line for line in lines if line.startswith('go2hooks_webhooks{state="routed"}'))
    return int(float(next(found, "x 0").rpartition(" ")[2]))
