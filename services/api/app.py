"""The Flask application, assembled from the adapters that `__main__` built."""

from flask import Flask, Response, g, request

from go2hooks.postgres.pool import Pool
from go2hooks.postgres.secrets import SecretBox
from go2hooks.settings import Settings
from services.api import (
    account_deliveries,
    audit,
    client_certificates,
    curl,
    dashboard,
    deliveries,
    delivery,
    docs_page,
    event_types,
    keys,
    replays,
    stats,
    testing,
    webhooks,
)
from services.api.context import EXTENSION, DeliveryWriter, PayloadSource, Services
from services.api.errors import register_error_handlers
from services.api.health import Readiness, health_blueprint
from services.api.limits import RequestLimits
from services.api.observe import observe
from services.api.openapi import openapi_blueprint
from services.api.operating import Operating
from services.api.places import Places


def create_app(
    settings: Settings,
    pool: Pool,
    secret_box: SecretBox,
    delivery_writer: DeliveryWriter,
    payload_reader: PayloadSource,
    operating: Operating | None = None,
) -> Flask:
    """The whole API. It opens nothing: the caller passes its adapters, and closes them."""
    app = Flask(__name__, static_folder=None)
    app.config.update(MAX_CONTENT_LENGTH=settings.api_max_body_bytes, PROVIDE_AUTOMATIC_OPTIONS=False)
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False  # both would redirect, with HTML
    app.extensions[EXTENSION] = Services(
        settings=settings,
        pool=pool,
        secret_box=secret_box,
        delivery_writer=delivery_writer,
        payload_reader=payload_reader,
        writing=Places(settings.api_threads // 2),
        limits=RequestLimits(settings),
        watching=Places(settings.api_threads // 4),
        operating=operating,
    )
    registry = observe(app)
    app.after_request(_harden)
    register_error_handlers(app)
    for resource in (
        account_deliveries,
        webhooks,
        client_certificates,
        deliveries,
        delivery,
        curl,
        testing,
        event_types,
        keys,
        audit,
        replays,
        stats,
    ):
        app.register_blueprint(resource.blueprint)
    app.register_blueprint(openapi_blueprint(app))
    app.register_blueprint(docs_page.blueprint)
    dashboard.register(app, settings)
    app.register_blueprint(health_blueprint(Readiness(pool, delivery_writer), registry))
    return app


def _harden(response: Response) -> Response:
    response.headers["X-Content-Type-Options"] = "nosniff"
    if request.path.startswith("/api/"):
        response.headers["Cache-Control"] = "no-store"  # some answers hold a secret
    if (quota := g.get("quota")) is not None:
        response.headers.update(quota.headers())
    return response
