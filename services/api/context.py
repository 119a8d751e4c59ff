"""What a request handler works with: built once in `__main__`, reached through the app."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, cast

from flask import current_app, g, request

from go2hooks.core.domain.delivery import Delivery, Position
from go2hooks.postgres.audit import Actor
from go2hooks.postgres.pool import Pool
from go2hooks.postgres.secrets import SecretBox
from go2hooks.postgres.session import Session
from go2hooks.settings import Settings
from services.api.limits import RequestLimits
from services.api.operating import Operating
from services.api.places import Places

EXTENSION = "go2hooks"


class DeliveryWriter(Protocol):
    """Hands deliveries to the dispatchers."""

    def write(self, delivery: Delivery) -> None:
        """Return once Kafka keeps it. Raises UnavailableError when Kafka does not within 5 s."""

    def is_reachable(self) -> bool:
        """Whether Kafka answers. Blocks for a second or two at most."""
        ...


class PayloadSource(Protocol):
    """Reads deliveries back from Kafka, and says how many events are there."""

    def read(self, delivery_id: str, positions: Iterable[Position]) -> Delivery | None:
        """The delivery from the first of these places where it still lies; None when it lies in none of them.

        Blocks for some seconds at most. Raises UnavailableError.
        """
        ...

    def count_events(self, account_id: str, events: Iterable[str], begin: datetime, end: datetime) -> int:
        """So many messages lie where the account's events of these types are, of other accounts too. The same holds for it."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """The adapters, and the bounds that requests share."""

    settings: Settings
    pool: Pool
    secret_box: SecretBox
    delivery_writer: DeliveryWriter
    payload_reader: PayloadSource
    writing: Places  #: threads that may wait for Kafka at once: the others stay free for everybody else
    limits: RequestLimits
    watching: Places  #: threads that may wait for an attempt's result at once
    operating: Operating | None = None  #: what operators see and do; None where no account is theirs


def services() -> Services:
    return cast("Services", current_app.extensions[EXTENSION])


@contextmanager
def transaction() -> Iterator[Session]:
    """What the request changes in Postgres is changed in here: with an Idempotency-Key, together with the answer that is kept."""
    shared = g.get("session")
    if shared is not None:
        yield cast("Session", shared)
    else:
        with services().pool.transaction() as conn:
            yield conn


def account_id() -> str:
    """The account whose key this request carries."""
    return cast("str", g.account_id)


def actor() -> Actor:
    """Who this request's changes are by."""
    return Actor("key", g.key_id, request.remote_addr)
