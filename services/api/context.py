"""The adapters of request handlers: built once in `__main__`, reached through the app."""

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
        """Read the delivery from the first of these positions that still has it; None when none has.

        Blocks for some seconds at most. Raises UnavailableError.
        """
        ...

    def count_events(self, account_id: str, events: Iterable[str], begin: datetime, end: datetime) -> int:
        """How many messages are where the account's events of these types are, other accounts' included.

        Blocks and raises as `read`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """The adapters and the limits that requests share."""

    settings: Settings
    pool: Pool
    secret_box: SecretBox
    delivery_writer: DeliveryWriter
    payload_reader: PayloadSource
    writing: Places  #: threads that may wait for Kafka at once: the others stay free for everybody else
    limits: RequestLimits
    watching: Places  #: threads that may wait for an attempt's result at once
    operating: Operating | None = None  #: for the operators' page; None when no operators' account is set


def services() -> Services:
    return cast("Services", current_app.extensions[EXTENSION])


@contextmanager
def transaction() -> Iterator[Session]:
    """The transaction for a request's changes; with an Idempotency-Key, it stores the answer too."""
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
    """The actor of this request's changes, for the audit log."""
    return Actor("key", g.key_id, request.remote_addr)
