"""Pages call the REST resources, in this process: each rule has one place."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from flask import current_app, request
from werkzeug.datastructures import Headers
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Response

from services.api.auth import SIGNED_IN
from services.api.dashboard.session import key


class Reply(NamedTuple):
    """What a resource answered."""

    status: int
    body: Any
    etag: str = ""

    @property
    def ok(self) -> bool:
        return self.status < 300  # noqa: PLR2004

    @property
    def data(self) -> Any:
        return self.body["data"]

    @property
    def error(self) -> Any:
        return self.body["error"]


class PageError(Exception):
    """A resource's error that makes a page impossible."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.error["message"])
        self.reply = reply


def ask(method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, /, **query: Any) -> Reply:
    """One request to `/api/v1<path>`, with the session's key."""
    wanted = {name: value for name, value in query.items() if value not in (None, "")}
    builder = EnvironBuilder(
        f"/api/v1{path}", method=method, json=body, headers=Headers(headers or {}), query_string=wanted
    )
    environ = builder.get_environ() | {SIGNED_IN: key(), "REMOTE_ADDR": request.remote_addr or ""}
    with Response.from_app(current_app.wsgi_app, environ) as response:  # closed, it notes that the key was used
        return Reply(response.status_code, response.json, response.headers.get("ETag", ""))


def get(path: str, **query: Any) -> Any:
    """The body of the answer to a GET. Raises PageError for an error."""
    reply = ask("GET", path, **query)
    if not reply.ok:
        raise PageError(reply)
    return reply.body
