"""The client certificates of webhooks (mTLS): fetched when needed, decrypted when a connection is made.

Most webhooks have none, so the replica holds only a digest. What is fetched stays sealed; a decrypted key exists only
in the TLS context. A context holds its own copy of all trusted CAs, almost a megabyte, so few are kept.
"""

import asyncio
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog
from psycopg import AsyncConnection

from go2hooks.core.domain.outcome import Failure, NoAnswer
from go2hooks.core.domain.webhook import Webhook
from go2hooks.core.errors import SealError
from go2hooks.postgres.client_certificates import StoredCertificate, find_certificate
from go2hooks.postgres.reconnecting import ReconnectingConnection
from go2hooks.postgres.secrets import Purpose, SecretBox
from services.dispatcher.http.identity import IdentityName
from services.dispatcher.http.tls import load_identity

log = structlog.get_logger(__name__)

_K = TypeVar("_K")
_V = TypeVar("_V")


class Identities:
    """Client certificates by webhook. Belongs to one event loop."""

    def __init__(
        self,
        box: SecretBox,
        connection: ReconnectingConnection,
        make_context: Callable[[], ssl.SSLContext],
        max_contexts: int,
    ) -> None:
        """`make_context` makes a TLS context without a certificate; it reads files, and is called in a thread."""
        self._box = box
        self._connection = connection
        self._make_context = make_context
        self._fetched: _Recent[str, StoredCertificate] = _Recent(2_000)  # of some kilobytes each
        self._contexts: _Recent[IdentityName, ssl.SSLContext] = _Recent(max_contexts)
        self._fetching: _Shared[str, StoredCertificate | None] = _Shared()
        self._building: _Shared[IdentityName, ssl.SSLContext] = _Shared()

    async def find(self, webhook: Webhook) -> "WebhookIdentity | NoAnswer | None":
        """The certificate; None when it was removed a moment ago; NoAnswer when it has expired.

        Reads one that is new or changed from Postgres, and waits while Postgres is away.
        """
        stored = self._fetched.get(webhook.id)
        if stored is None or stored.digest != webhook.client_certificate:
            stored = await self._fetching.join(webhook.id, lambda: self._fetch(webhook.id))
        if stored is None:
            return None
        if time.time() >= stored.not_after.timestamp():
            message = f"The webhook's client certificate expired at {stored.not_after:%Y-%m-%dT%H:%M:%SZ}."
            return NoAnswer(Failure.TLS_ERROR, message, 0.0)
        return WebhookIdentity(stored, self)

    async def context(self, stored: StoredCertificate) -> ssl.SSLContext:
        """Raises SealError or ClientIdentityError when the key cannot be used."""
        name = (stored.webhook_id, stored.digest)
        context = self._contexts.get(name)
        if context is None:
            context = await self._building.join(name, lambda: self._build(name, stored))
        return context

    async def _fetch(self, webhook_id: str) -> StoredCertificate | None:
        async def work(connection: AsyncConnection[Any]) -> StoredCertificate | None:
            return await find_certificate(connection, webhook_id)

        stored = await self._connection.run(work)
        if stored is None:
            self._fetched.pop(webhook_id)
        else:
            self._fetched.put(webhook_id, stored)
        return stored

    async def _build(self, name: IdentityName, stored: StoredCertificate) -> ssl.SSLContext:
        try:
            context = await asyncio.to_thread(self._open, stored)
        except SealError:
            self._fetched.pop(stored.webhook_id)  # the same may be uploaded again
            log.error(  # noqa: TRY400  # the traceback says nothing more
                "client key cannot be opened; is its key in GO2HOOKS_SECRET_KEYS?", webhook_id=stored.webhook_id
            )
            raise
        self._contexts.put(name, context)
        return context

    def _open(self, stored: StoredCertificate) -> ssl.SSLContext:
        private_key = self._box.open(stored.sealed_key, stored.webhook_id, Purpose.CLIENT_KEY)
        context = self._make_context()
        load_identity(context, stored.chain, private_key)
        return context


@dataclass(frozen=True, slots=True)
class WebhookIdentity:
    """A webhook's certificate as an `Identity`; its context is made when a connection needs it."""

    stored: StoredCertificate
    identities: Identities

    @property
    def name(self) -> IdentityName:
        return self.stored.webhook_id, self.stored.digest

    async def context(self) -> ssl.SSLContext:
        return await self.identities.context(self.stored)


class _Recent(Generic[_K, _V]):
    """A bounded map that drops the entry which has not been used for longest."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: OrderedDict[_K, _V] = OrderedDict()

    def get(self, key: _K) -> _V | None:
        if key not in self._items:
            return None
        self._items.move_to_end(key)
        return self._items[key]

    def put(self, key: _K, value: _V) -> None:
        self._items[key] = value
        self._items.move_to_end(key)
        if len(self._items) > self._size:
            self._items.popitem(last=False)

    def pop(self, key: _K) -> None:
        self._items.pop(key, None)


class _Shared(Generic[_K, _V]):
    """Work under way, by key: those who ask for the same wait for one task."""

    def __init__(self) -> None:
        self._tasks: dict[_K, asyncio.Task[_V]] = {}

    async def join(self, key: _K, work: Callable[[], Coroutine[Any, Any, _V]]) -> _V:
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(work())
            task.add_done_callback(lambda done: self._end(key, done))
        return await asyncio.shield(task)  # others may wait for it too

    def _end(self, key: _K, task: asyncio.Task[_V]) -> None:
        del self._tasks[key]
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio logs nothing when nobody waits
