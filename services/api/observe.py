"""One log line and two metrics per request, labelled by route and not by path: ids would make them grow."""

import time
from typing import Final

import structlog
from flask import Flask, Response, g, request
from prometheus_client import Counter, Histogram
from prometheus_client.registry import CollectorRegistry

from go2hooks.telemetry.metrics import service_registry

log = structlog.get_logger(__name__)

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"})
_OTHER: Final = "other"
_UNMATCHED: Final = "unmatched"
_OPERATORS: Final = frozenset({"/healthz", "/readyz", "/metrics"})  # requested every few seconds: not logged
_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0)


def observe(app: Flask) -> CollectorRegistry:
    """Count, time and log every request of this app. Returns the app's own registry."""
    registry = service_registry()
    labels = ("method", "route", "status")
    requests = Counter("go2hooks_api_requests_total", "Requests answered by the API", labels, registry=registry)
    seconds = Histogram(
        "go2hooks_api_request_duration_seconds",
        "Time to answer a request",
        labels,
        registry=registry,
        buckets=_BUCKETS_S,
    )

    def start() -> None:
        g.started = time.perf_counter()

    def finish(response: Response) -> Response:
        duration_s = time.perf_counter() - g.started
        method = request.method if request.method in _METHODS else _OTHER
        route = request.url_rule.rule if request.url_rule is not None else _UNMATCHED
        requests.labels(method, route, str(response.status_code)).inc()
        seconds.labels(method, route, str(response.status_code)).observe(duration_s)
        if route not in _OPERATORS:
            _log(method, route, response.status_code, duration_s)
        return response

    app.before_request(start)
    app.after_request(finish)
    return registry


def _log(method: str, route: str, status: int, duration_s: float) -> None:
    log.info(
        "request",
        method=method,
        route=route,
        status=status,
        duration_ms=round(duration_s * 1000, 2),
        account=g.get("account_id"),
        webhook=(request.view_args or {}).get("webhook_id"),
    )
