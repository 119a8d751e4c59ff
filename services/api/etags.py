"""`ETag`, `If-Match` and `If-None-Match` of a webhook, against lost updates."""

from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any

from flask import Response, request

from services.api.answers import encode
from services.api.errors import ApiError


def etag_of(shown: Mapping[str, Any], updated_at: datetime) -> str:
    """A strong ETag: it changes with what GET shows, and with each change, even one that GET does not show."""
    return sha256(encode(shown) + updated_at.isoformat().encode()).hexdigest()[:32]


def check_if_match(etag: str) -> None:
    """Raises ApiError 412 when the request names another version. The row is locked."""
    if "If-Match" in request.headers and not request.if_match.contains(etag):
        message = "The webhook is not as you have seen it: read it again, and repeat your change with its new ETag."
        raise ApiError(412, "precondition_failed", message)


def unless_known(answer: Response) -> Response:
    """304 instead, without a body, when the caller has this version."""
    etag, _ = answer.get_etag()
    if etag is None or not request.if_none_match.contains_weak(etag):
        return answer
    unchanged = Response(status=304)
    unchanged.set_etag(etag)
    del unchanged.headers["Content-Type"]
    return unchanged
