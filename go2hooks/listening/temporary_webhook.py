"""A webhook that exists while somebody listens."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from go2hooks.core.errors import Go2HooksError
from go2hooks.listening.api_client import ApiClient, ApiRefusedError

NAME: Final = "go2hooks listen"


class TemporaryWebhook(NamedTuple):
    """The webhook as its listener needs it. The secret is stored nowhere else."""

    id: str
    secret: str
    events: tuple[str, ...]


class LeftBehindError(Go2HooksError):
    """A webhook that could not be removed. The message says how to do it."""


@contextmanager
def subscribed(api: ApiClient, url: str, fields: Mapping[str, Any]) -> Iterator[TemporaryWebhook]:
    """Create a webhook that posts to `url`, and remove it at the end. `fields` has its events and other settings.

    Raises ApiRefusedError or UnavailableError when it cannot be made, LeftBehindError when it cannot be removed.
    """
    made = api.call("POST", "/webhooks", {"name": NAME, "url": url, **fields})["data"]
    try:
        yield TemporaryWebhook(made["id"], made["secret"], tuple(made["events"]))
    finally:
        _remove(api, made["id"])


def fields_of(api: ApiClient, webhook_id: str) -> dict[str, Any]:
    """The settings of another webhook to copy: its events, its filter, and its headers except secret ones.

    Raises ApiRefusedError or UnavailableError.
    """
    shown = api.call("GET", f"/webhooks/{webhook_id}")["data"]
    headers = {name: value for name, value in (shown.get("headers") or {}).items() if isinstance(value, str)}
    fields = {"events": shown["events"], "filter": shown.get("filter"), "headers": headers}
    return {name: value for name, value in fields.items() if value}


def _remove(api: ApiClient, webhook_id: str) -> None:
    try:
        api.call("DELETE", f"/webhooks/{webhook_id}")
    except Go2HooksError as error:
        if isinstance(error, ApiRefusedError) and error.status == HTTPStatus.NOT_FOUND:
            return  # somebody was quicker
        raise LeftBehindError(
            f"{error} So the webhook {webhook_id} could not be removed: DELETE {api.address}/webhooks/{webhook_id} does it. "
            "Left alone, it is disabled after its next failures."
        ) from error
