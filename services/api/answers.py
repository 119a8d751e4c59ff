"""The envelope of every answer, and the format of times."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, overload

from flask import Response

from go2hooks.core.encoding.payload import format_timestamp

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def success(
    data: Any,
    status: int = 200,
    *,
    meta: Mapping[str, Any] | None = None,
    location: str | None = None,
    etag: str | None = None,
) -> Response:
    body = {"success": True, "data": data} | ({"meta": meta} if meta is not None else {})
    answer = as_json(body, status)
    if location is not None:
        answer.headers["Location"] = location
    if etag is not None:
        answer.set_etag(etag)
    return answer


def failure(
    status: int,
    code: str,
    message: str,
    *,
    details: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    answer = as_json({"success": False, "error": failure_body(code, message, details)}, status)
    answer.headers.update(headers or {})
    return answer


def failure_body(code: str, message: str, details: Mapping[str, str] | None = None) -> dict[str, Any]:
    return {"code": code, "message": message, "details": dict(details or {})}


def as_json(body: Any, status: int) -> Response:
    return Response(encode(body), status, mimetype="application/json")


def encode(body: Any) -> bytes:
    """JSON in UTF-8. A lone surrogate that a caller sent is returned as an escape."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode(
        "utf-8", "backslashreplace"
    )


@overload
def iso(moment: datetime) -> str: ...
@overload
def iso(moment: datetime | None) -> str | None: ...
def iso(moment: datetime | None) -> str | None:
    """ISO 8601 in UTC, ending in Z; with milliseconds only where they are not zero."""
    return None if moment is None else format_timestamp((moment - _EPOCH) // _MILLISECOND)


_MILLISECOND = datetime.resolution * 1000
