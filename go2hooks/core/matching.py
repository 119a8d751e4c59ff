"""Which webhooks an event goes to: an index by account and event, never a scan.

One flat dictionary, keyed by account and event name together, costs half the memory of a dictionary per account: most
accounts have one webhook or two.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from go2hooks.core.event import WILDCARD
from go2hooks.core.webhook import Webhook


def _key(account_id: str, event: str) -> str:
    return f"{account_id}\0{event}"


class SubscriptionIndex:
    """Webhook ids by account and event. Disabled webhooks are in it: their deliveries are recorded as skipped.

    Given a lock, two threads may use it, one that changes it and one that matches: who wants an event before and after a
    change is found in the middle of it, too.
    """

    __slots__ = ("_entries", "_ids", "_lock")

    def __init__(self, lock: AbstractContextManager[Any] | None = None) -> None:
        self._lock = lock or nullcontext()
        self._ids: dict[str, tuple[str, ...]] = {}
        self._entries: dict[str, tuple[str, frozenset[str]]] = {}  # webhook id → what it is filed under

    def __len__(self) -> int:
        return len(self._entries)

    def match(self, account_id: str, event: str) -> tuple[str, ...]:
        """Ids of the webhooks that want this event, each once."""
        with self._lock:
            named = self._ids.get(_key(account_id, event), ())
            wild = self._ids.get(_key(account_id, WILDCARD), ())
        return named + wild if named and wild else named or wild

    def apply(self, webhook: Webhook) -> None:
        """File a new or changed webhook; take a deleted one out."""
        old = self._entries.get(webhook.id)
        new = None if webhook.is_deleted else (webhook.account_id, _filed_under(webhook.events))
        if old == new:
            return
        with self._lock:
            if old is not None:
                del self._entries[webhook.id]
                self._unfile(webhook.id, *old)
            if new is not None:
                self._entries[webhook.id] = new
                self._file(webhook.id, *new)

    def _file(self, webhook_id: str, account_id: str, events: frozenset[str]) -> None:
        for event in events:
            key = _key(account_id, event)
            self._ids[key] = (*self._ids.get(key, ()), webhook_id)

    def _unfile(self, webhook_id: str, account_id: str, events: frozenset[str]) -> None:
        for event in events:
            key = _key(account_id, event)
            left = tuple(other for other in self._ids[key] if other != webhook_id)
            if left:
                self._ids[key] = left
            else:
                del self._ids[key]


_WILD = frozenset({WILDCARD})


def _filed_under(events: frozenset[str]) -> frozenset[str]:
    """`*` covers the others, so such a webhook stands in one place and matches once."""
    return _WILD if WILDCARD in events else events
