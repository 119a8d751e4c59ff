"""What the dispatcher knows of webhooks: the replica, a look at Postgres for those it does not know, opened secrets."""

import json
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from threading import Lock
from typing import Final

import structlog
from psycopg import AsyncConnection

from go2hooks.core.domain.delivery import ON_REQUEST, Delivery
from go2hooks.core.domain.outcome import Skip, SkipReason
from go2hooks.core.domain.webhook import Webhook, WebhookOptions
from go2hooks.core.errors import SealError
from go2hooks.core.flow.allowance import Allowance
from go2hooks.postgres.away import REFUSED
from go2hooks.postgres.reconnecting import ReconnectingConnection
from go2hooks.postgres.replica import find_webhook
from go2hooks.postgres.secrets import Purpose, SecretBox

log = structlog.get_logger(__name__)

_TOMBSTONES: Final = 10_000
_OPENED_SECRETS: Final = 20_000
_OPENED_HEADERS: Final = 2_000  # of 4 KiB each at most


class Webhooks:
    """Webhooks by id. `apply` is called by the replica's thread, the rest by the event loop."""

    def __init__(self, box: SecretBox, connection: ReconnectingConnection) -> None:
        self._by_id: dict[str, Webhook] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()  # deleted, or never there: bounded, oldest forgotten first
        self._changing = Lock()
        self._connection = connection
        self._open = lru_cache(maxsize=_OPENED_SECRETS)(box.open)
        self._box = box
        self._open_headers = lru_cache(maxsize=_OPENED_HEADERS)(self._opened_headers)
        self._open_previous = lru_cache(maxsize=_OPENED_SECRETS)(self._open_or_say)

    def __len__(self) -> int:
        return len(self._by_id)

    def apply(self, webhook: Webhook) -> Webhook | None:
        """Take over a new or changed webhook, or a tombstone. Returns what was there before."""
        with self._changing:
            return self._apply(webhook)

    def _apply(self, webhook: Webhook) -> Webhook | None:
        if webhook.is_deleted:
            self._bury(webhook.id)
            return self._by_id.pop(webhook.id, None)
        old = self._by_id.get(webhook.id)
        self._by_id[webhook.id] = webhook
        self._gone.pop(webhook.id, None)
        return old

    def get(self, webhook_id: str) -> Webhook | None:
        """The webhook; None when it is deleted or not known."""
        return self._by_id.get(webhook_id)

    def reason_to_skip(self, delivery: Delivery) -> Skip | None:
        """Why its webhook, which is known, does not get it; None when it does."""
        webhook = self._by_id.get(delivery.webhook_id)
        if webhook is None or webhook.account_id != delivery.account_id:
            return Skip(SkipReason.DELETED)
        if delivery.kind in ON_REQUEST:
            return None
        if not webhook.is_active:
            return Skip(SkipReason.DISABLED)
        return None if webhook.wants(delivery.event) else Skip(SkipReason.UNSUBSCRIBED)

    def is_limited(self, webhook_id: str) -> bool:
        """Whether its customer allows only so many requests to it."""
        webhook = self._by_id.get(webhook_id)
        return webhook is not None and webhook.options is not None and webhook.options.is_limited

    def allowance(self, webhook_id: str) -> Allowance | None:
        """A new one, of what its customer allows."""
        webhook = self._by_id.get(webhook_id)
        if webhook is None or webhook.options is None or not webhook.options.is_limited:
            return None
        return Allowance(webhook.options.rate_limit, webhook.options.max_concurrency)

    def knows(self, webhook_id: str) -> bool:
        """Whether `get` is the last word. A webhook may be younger than the replica's last news."""
        return webhook_id in self._by_id or webhook_id in self._gone

    async def fetch(self, webhook_id: str) -> None:
        """Ask Postgres; afterwards the webhook is known, or known to be gone. Waits while Postgres is away."""

        async def work(connection: AsyncConnection[tuple[object, ...]]) -> Webhook | None:
            return await find_webhook(connection, webhook_id)

        try:
            webhook = await self._connection.run(work)
        except REFUSED:  # no id that Postgres could keep
            webhook = None
        with self._changing:
            # The replica may have told of it meanwhile, and will not tell of the same change again.
            if self.knows(webhook_id):
                return
            if webhook is None:
                self._bury(webhook_id)
            else:
                self._apply(webhook)

    def secrets(self, webhook: Webhook, now_ms: int) -> Sequence[str]:
        """The secrets that sign now, the present one first. Raises SealError when no key opens that one.

        A previous one that does not open is left out: with its key lost, a new secret is what helps.
        """
        secret = self._open(webhook.sealed_secret, webhook.id)
        if webhook.sealed_previous_secret is None or now_ms >= webhook.previous_secret_expires_ms:
            return (secret,)
        previous = self._open_previous(webhook.sealed_previous_secret, webhook.id)
        return (secret,) if previous is None else (secret, previous)

    def headers(self, webhook_id: str, options: WebhookOptions) -> tuple[tuple[str, str], ...]:
        """The webhook's own headers, for its requests alone. Raises SealError when no key opens the secret ones."""
        if options.sealed_headers is None:
            return tuple([(name, value) for name, value in options.headers if value is not None])
        return self._open_headers(options, webhook_id)

    def _opened_headers(self, options: WebhookOptions, webhook_id: str) -> tuple[tuple[str, str], ...]:
        sealed = options.sealed_headers
        opened = {} if sealed is None else json.loads(self._box.open(sealed, webhook_id, Purpose.HEADERS))
        return tuple([(name, opened[name] if value is None else value) for name, value in options.headers])

    def _open_or_say(self, sealed: bytes, webhook_id: str) -> str | None:
        """None when no key opens it. What it returns is kept, so a log does not say it with each delivery."""
        try:
            return self._open(sealed, webhook_id)
        except SealError:
            log.error(  # noqa: TRY400  # the traceback says nothing more
                "previous secret cannot be opened; is its key in GO2HOOKS_SECRET_KEYS?", webhook_id=webhook_id
            )
            return None

    def count_by_state(self) -> dict[tuple[str, ...], float]:
        """For the gauge; walks the whole copy, so it belongs to a scrape and not to a delivery."""
        active = sum(webhook.is_active for webhook in list(self._by_id.values()))
        return {("active",): active, ("disabled",): len(self._by_id) - active}

    def _bury(self, webhook_id: str) -> None:
        self._gone[webhook_id] = None
        while len(self._gone) > _TOMBSTONES:
            self._gone.popitem(last=False)


def gets_fresh_start(old: Webhook | None, new: Webhook) -> bool:
    """Whether a change of a webhook lets its receiver begin anew: nothing that came before counts against it."""
    return old is not None and _circumstances(old) != _circumstances(new)


def changes_allowance(old: Webhook | None, new: Webhook) -> bool:
    """Whether a change is one of what a webhook's customer allows."""
    return old is not None and _limits(old) != _limits(new)


def _limits(webhook: Webhook) -> tuple[float | None, int | None]:
    options = webhook.options
    return (None, None) if options is None else (options.rate_limit, options.max_concurrency)


def _circumstances(webhook: Webhook) -> tuple[object, ...]:
    return webhook.url, webhook.is_active, webhook.is_deleted, webhook.client_certificate
