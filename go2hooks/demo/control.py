"""The demo's client of the REST API."""

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from go2hooks.core.errors import UnavailableError
from go2hooks.demo.verdict import History
from go2hooks.listening.api_client import ApiClient


class Control(ApiClient):
    """Requests of the demo. Every method raises as `call` does."""

    def create(self, name: str, url: str, events: Sequence[str]) -> dict[str, Any]:
        """The new webhook, its secret included."""
        body = {"name": name, "url": url, "events": list(events)}
        webhook: dict[str, Any] = self.call("POST", "/webhooks", body)["data"]
        return webhook

    def history(self, webhook_id: str) -> History:
        """The webhook, and all its deliveries as they are now."""
        webhook = self.call("GET", f"/webhooks/{webhook_id}")["data"]
        return History(webhook, {shown["id"]: shown for shown in self._deliveries(webhook_id)})

    def is_active(self, webhook_id: str) -> bool:
        active: bool = self.call("GET", f"/webhooks/{webhook_id}")["data"]["isActive"]
        return active

    def _deliveries(self, webhook_id: str) -> Iterator[dict[str, Any]]:
        cursor: str | None = ""
        while cursor is not None:
            query = urlencode({"perPage": 100} | ({"cursor": cursor} if cursor else {}))
            page = self.call("GET", f"/webhooks/{webhook_id}/deliveries?{query}")
            yield from page["data"]
            cursor = page["meta"]["nextCursor"]


def routed_webhooks(metrics_url: str) -> int:
    """How many webhooks the router knows. Raises UnavailableError."""
    try:
        with urlopen(metrics_url, timeout=10.0) as response:  # noqa: S310  # http, our own stack
            lines: list[str] = response.read().decode().splitlines()
    except URLError as error:
        raise UnavailableError(f"The router does not answer: {error.reason}") from error
    found = (line for line in lines if line.startswith('go2hooks_webhooks{state="routed"}'))
    return int(float(next(found, "x 0").rpartition(" ")[2]))
