"""The API as its users call it, without a server."""

from dataclasses import dataclass
from typing import Any

import documented
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

HOOK = {"name": "Click Tracker", "url": "https://your-server.com/webhooks/go2", "events": ["click", "link.created"]}


class Described(FlaskClient):
    """Sees to it that every answer of every test is one that the API's own document tells of, to the last field."""

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        answer = super().open(*args, **kwargs)
        documented.check(self.application, answer)
        return answer


@dataclass
class Caller:
    """One account's way to the API."""

    client: FlaskClient
    account_id: str
    key: str

    def __call__(self, method: str, path: str, body: Any = None, **options: Any) -> TestResponse:
        headers = {"Authorization": f"Bearer {self.key}"} | options.pop("headers", {})
        if body is not None:
            options["json"] = body
        return self.client.open(f"/api/v1{path}", method=method, headers=headers, **options)

    def create(self, **changes: Any) -> dict[str, Any]:
        answer = self("POST", "/webhooks", HOOK | changes)
        assert answer.status_code == 201, answer.text
        return answer.json["data"]
