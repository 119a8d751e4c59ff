"""An attempt is made: the request is prepared, signed and sent.

Almost always there is an idle connection to the receiver. Then nothing has to be waited for before the request is written, and
the response's arrival goes on where sending left off: no task, no future. Where something has to be waited for (a connection,
a client certificate) a task does.
"""

from collections.abc import Callable

import structlog

from go2hooks.core.domain.outcome import NoAnswer, Response
from go2hooks.core.domain.webhook import Webhook
from go2hooks.core.security.request import SignedRequest
from services.dispatcher.attempt import Attempt
from services.dispatcher.clock import now_ms
from services.dispatcher.http import Sender
from services.dispatcher.http.identity import Identity
from services.dispatcher.requests import FAILED_INSIDE, Requests
from services.dispatcher.tasks import Tasks
from services.dispatcher.webhooks import Webhooks

log = structlog.get_logger(__name__)


class Sending:
    """Makes attempts, on the event loop. `on_response` hears of the end of each, once."""

    def __init__(
        self, webhooks: Webhooks, requests: Requests, sender: Sender, tasks: Tasks,
        on_response: Callable[[Attempt, Response], None],
    ) -> None:  # fmt: skip
        self._webhooks = webhooks
        self._requests = requests
        self._sender = sender
        self._tasks = tasks
        self._on_response = on_response

    def begin(self, attempt: Attempt) -> None:
        """At once where there is an idle connection, in a task where there is none."""
        delivery = attempt.item.delivery
        webhook = self._webhooks.get(delivery.webhook_id)
        if webhook is not None and webhook.client_certificate is not None:
            self._tasks.spawn(self._send_identified(attempt, webhook))
            return
        request = self._requests.make(delivery, webhook, attempt.began_ms)
        if isinstance(request, NoAnswer):
            self._on_response(attempt, request)
        elif not self._sender.send_now(request, lambda response: self._on_response(attempt, response)):
            self._tasks.spawn(self._send(attempt, request, None))

    async def _send_identified(self, attempt: Attempt, webhook: Webhook) -> None:
        """Under the webhook's client certificate, which may have to be fetched."""
        identity = await self._requests.identify(webhook)
        if isinstance(identity, NoAnswer):
            self._on_response(attempt, identity)
            return
        webhook_now = self._webhooks.get(webhook.id)
        request = self._requests.make(attempt.item.delivery, webhook_now, now_ms())
        if isinstance(request, NoAnswer):
            self._on_response(attempt, request)
        else:
            await self._send(attempt, request, identity)

    async def _send(self, attempt: Attempt, request: SignedRequest, identity: Identity | None) -> None:
        try:
            response = await self._sender.send(request, identity)
        except Exception:  # a defect of ours must harm this delivery alone, and must not harm it for good
            log.exception("attempt failed inside", delivery_id=attempt.item.delivery.id)
            response = FAILED_INSIDE
        self._on_response(attempt, response)
