"""Finds the webhooks that want an event, by an index on account and event, without a scan.

One flat dictionary, keyed by account and event name together, takes half the memory of a dictionary per account,
because most accounts have one or two webhooks.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from go2hooks.core.domain.event import WILDCARD
from go2hooks.core.domain.filters import Filter
from go2hooks.core.domain.webhook import Webhook


def _key(account_id: str, event: str) -> str:
    return f"{account_id}\0{event}"


class SubscriptionIndex:
    """Webhook ids by account and event. It contains disabled webhooks too: their deliveries are recorded as skipped.

    Webhooks with a filter have a dictionary of their own, so that filters do not slow down the match for other
    webhooks.

    With a lock, one thread may change the index while another one matches: a webhook that wants an event before and
    after a change is also found during the change.
    """

    __slots__ = ("_entries", "_filtered", "_filters", "_ids", "_lock")

    def __init__(self, lock: AbstractContextManager[Any] | None = None) -> None:
        self._lock = lock or nullcontext()
        self._ids: dict[str, tuple[str, ...]] = {}
        self._filtered: dict[str, tuple[str, ...]] = {}
        self._entries: dict[str, tuple[str, frozenset[str]]] = {}  # webhook id → account id and indexed events
        self._filters: dict[str, Filter] = {}  # by webhook id

    def __len__(self) -> int:
        return len(self._entries)

    def match(self, account_id: str, event: str, data: Mapping[str, Any]) -> tuple[str, ...]:
        """Ids of the webhooks that want this event, each once."""
        name, star = _key(account_id, event), _key(account_id, WILDCARD)
        with self._lock:
            named = self._ids.get(name, ())
            wild = self._ids.get(star, ())
            passing = self._passing(name, star, data) if self._filtered else ()
        matched = named + wild if named and wild else named or wild
        return matched + passing if passing else matched

    def _passing(self, name: str, star: str, data: Mapping[str, Any]) -> tuple[str, ...]:
        filtered = self._filtered.get(name, ()) + self._filtered.get(star, ())
        return tuple([webhook_id for webhook_id in filtered if self._filters[webhook_id].matches(data)])

    def apply(self, webhook: Webhook) -> None:
        """Index a new or changed webhook; remove a deleted one."""
        old, old_filter = self._entries.get(webhook.id), self._filters.get(webhook.id)
        new = None if webhook.is_deleted else (webhook.account_id, _filed_under(webhook.events))
        new_filter = None if new is None or webhook.options is None else webhook.options.filter
        if old == new and old_filter is new_filter:
            return
        with self._lock:
            if old is not None:
                del self._entries[webhook.id]
                self._filters.pop(webhook.id, None)
                _unfile(self._ids if old_filter is None else self._filtered, webhook.id, *old)
            if new is not None:
                self._entries[webhook.id] = new
                if new_filter is not None:
                    self._filters[webhook.id] = new_filter
                _file(self._ids if new_filter is None else self._filtered, webhook.id, *new)


def _file(ids: dict[str, tuple[str, ...]], webhook_id: str, account_id: str, events: frozenset[str]) -> None:
    for event in events:
        key = _key(account_id, event)
        ids[key] = (*ids.get(key, ()), webhook_id)


def _unfile(ids: dict[str, tuple[str, ...]], webhook_id: str, account_id: str, events: frozenset[str]) -> None:
    for event in events:
        key = _key(account_id, event)
        left = tuple(other for other in ids[key] if other != webhook_id)
        if left:
            ids[key] = left
        else:
            del ids[key]


_WILD = frozenset({WILDCARD})


def _filed_under(events: frozenset[str]) -> frozenset[str]:
    """`*` includes all other events, so a webhook with `*` has one entry and matches once."""
    return _WILD if WILDCARD in events else events
