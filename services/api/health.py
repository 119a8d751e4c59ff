"""`/healthz`, `/readyz`, `/metrics`: for the operator, outside the API's base path and without a key."""

import threading
import time
from typing import Final

import psycopg
from flask import Blueprint, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import CollectorRegistry

from go2hooks.core.errors import UnavailableError
from go2hooks.postgres import webhooks
from go2hooks.postgres.away import GRANTS, Outage
from go2hooks.postgres.pool import Pool
from go2hooks.postgres.rights import Role, missing_rights
from services.api.answers import as_json
from services.api.context import DeliveryWriter

_REMEMBERED_S: Final = 1.0


class Readiness:
    """Whether Postgres and Kafka answer. Anybody may ask, so they are checked once a second at most, by one thread."""

    def __init__(self, pool: Pool, delivery_writer: DeliveryWriter) -> None:
        self._pool = pool
        self._delivery_writer = delivery_writer
        self._lock = threading.Lock()
        self._asked = float("-inf")
        self._outage = Outage("api")
        self._known = {"postgres": False, "kafka": False}

    def checks(self) -> dict[str, bool]:
        """Results by server. Blocks one caller for up to 6 s; the others get the last result."""
        if time.monotonic() - self._asked >= _REMEMBERED_S and self._lock.acquire(blocking=False):
            try:
                self._known = {"postgres": self._postgres(), "kafka": self._delivery_writer.is_reachable()}
                self._asked = time.monotonic()
            finally:
                self._lock.release()
        return self._known

    def _postgres(self) -> bool:
        """Whether it is reachable, migrated, and grants what the API needs."""
        try:
            with self._pool.transaction() as conn:
                missing = missing_rights(conn, Role.API)
                webhooks.try_reading(conn)
        except psycopg.Error as error:
            self._outage.tell(self._pool.try_connecting() or error)
            return False
        if missing:
            self._outage.tell(UnavailableError(f"missing rights: {', '.join(missing)}; {GRANTS}"))
            return False
        self._outage.end()
        return True


def health_blueprint(readiness: Readiness, registry: CollectorRegistry) -> Blueprint:
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/healthz")
    def healthz() -> Response:
        return as_json({"status": "ok"}, 200)

    @blueprint.get("/readyz")
    def readyz() -> Response:
        checks = readiness.checks()
        return as_json(checks, 200 if all(checks.values()) else 503)

    @blueprint.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    return blueprint
