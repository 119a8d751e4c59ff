"""Every error as an answer in the envelope: never HTML, never a stack trace."""

from collections.abc import Mapping
from typing import Final

import psycopg
import structlog
from flask import Flask, Response
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from go2hooks.core.errors import UnavailableError
from go2hooks.postgres.away import UNFIT, explain
from services.api.answers import failure

log = structlog.get_logger(__name__)

RETRY_AFTER_S: Final = 3

_HTTP_CODES: Final = {
    400: ("bad_request", "The request is malformed."),
    404: ("not_found", "There is nothing at this address."),
    405: ("method_not_allowed", "This address does not know that method; see the Allow header."),
    413: ("body_too_large", "The request body is too large."),
    414: ("uri_too_long", "The request's address is too long."),
    415: ("unsupported_media_type", "The body must be JSON, sent as application/json."),
    431: ("headers_too_large", "The request's headers are too large."),
    500: ("internal_error", "Something went wrong on our side; it has been logged."),
}


class ApiError(Exception):
    """An answer other than success. `details` names each field at fault."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.headers = headers


def webhook_not_found() -> ApiError:
    """404, the same for an unknown id and for another account's."""
    return ApiError(404, "webhook_not_found", "Your account has no webhook with this id.")


def invalid(details: Mapping[str, str]) -> ApiError:
    """422, naming the fields."""
    fields = ", ".join(name for name in details if name)
    message = f"Some fields are not valid: {fields}." if fields else "The request is not valid."
    return ApiError(422, "validation_failed", message, details=details)


def busy(message: str) -> ApiError:
    return ApiError(503, "busy", message, headers={"Retry-After": "1"})


def register_error_handlers(app: Flask) -> None:
    app.register_error_handler(ApiError, on_api_error)
    app.register_error_handler(HTTPException, _on_http_error)
    app.register_error_handler(UnavailableError, _on_unavailable)
    app.register_error_handler(psycopg.OperationalError, _on_unavailable)  # a pool without connections, too
    app.register_error_handler(psycopg.errors.QueryCanceled, _on_too_slow)  # an OperationalError, but Postgres is there
    app.register_error_handler(psycopg.InterfaceError, _on_unavailable)  # a connection that broke
    for kind in UNFIT:  # as good as away
        app.register_error_handler(kind, _on_unavailable)
    app.register_error_handler(Exception, _on_unexpected)


def describe(status: int) -> tuple[str, str]:
    """Code and message for an HTTP status."""
    return _HTTP_CODES.get(status, ("bad_request", "The request cannot be answered."))


def on_api_error(error: ApiError) -> Response:
    """The answer for an error."""
    return failure(error.status, error.code, error.message, details=error.details, headers=error.headers)


def _on_http_error(error: HTTPException) -> Response:
    status = error.code or 400
    allowed = error.valid_methods if isinstance(error, MethodNotAllowed) else None
    headers = {"Allow": ", ".join(sorted(allowed))} if allowed else None
    return failure(status, *describe(status), headers=headers)


def _on_unavailable(error: Exception) -> Response:
    log.warning("answered 503", cause=type(error).__name__, error=explain(error))
    message = "A server that the API needs is away; nothing was lost, try again."
    return failure(503, "unavailable", message, headers={"Retry-After": str(RETRY_AFTER_S)})


def _on_too_slow(error: psycopg.errors.QueryCanceled) -> Response:
    log.warning("answered 503", cause=type(error).__name__, error=str(error))
    message = "The answer takes too long at the moment; try again, and narrow a history with since and until."
    return on_api_error(busy(message))


def _on_unexpected(error: Exception) -> Response:
    log.error("unexpected error", exc_info=error)
    return failure(500, *describe(500))
