"""`Idempotency-Key` on POST: a repeated request gets the first answer, and is not executed again.

As draft-ietf-httpapi-idempotency-key-header has it: per account, for a day. The same key with another request is 422, and
409 while the first is being answered. Refusals that the caller can wait out (409, 412, 429) and failures are not kept:
what they refuse is not done, so asking again is safe.
"""

import json
import re
from collections.abc import Callable
from hashlib import sha256
from typing import Final

from flask import Response, g, request

from go2hooks.core.errors import SealError
from go2hooks.postgres import idempotency
from go2hooks.postgres.idempotency import KeptAnswer
from go2hooks.postgres.secrets import Purpose
from go2hooks.postgres.session import Session
from services.api.context import account_id, services
from services.api.errors import ApiError, invalid, on_api_error

HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotent-Replayed"
MAX_CHARS: Final = 255
PATTERN: Final = "^[ -~]+$"
_STRUCTURED: Final = re.compile(r'"((?:[^"\\]|\\["\\])+)"')  # a string of RFC 9651, as the draft writes a key
_KEPT_HEADERS: Final = ("Location", "ETag", "Retry-After")
_NOT_KEPT: Final = frozenset({409, 412, 429})
_CLIENT_ERRORS: Final = range(400, 500)


def answer_once(view: Callable[[], Response]) -> Response:
    """The view's answer, or the stored answer for this key. Raises ApiError 409 and 422."""
    key = _read_key()
    if key is None:
        return view()
    request_hash = _hash_request()
    with services().pool.transaction() as conn:
        if not idempotency.try_lock(conn, account_id(), key):
            message = "A request with this Idempotency-Key is being answered; try again in a second."
            raise ApiError(409, "idempotency_key_in_use", message)
        kept = idempotency.find(conn, account_id(), key)
        if kept is not None:
            return _answer_again(kept, key, request_hash)
        answer = _answer(conn, view)
        sealed = services().secret_box.seal(_write(answer), _bound_to(key), Purpose.ANSWER)
        idempotency.keep(conn, account_id(), key, KeptAnswer(request_hash, sealed))
        return answer


def _read_key() -> str | None:
    raw = request.headers.get(HEADER)
    if raw is None:
        return None
    if not re.fullmatch(PATTERN, raw) or len(raw) > MAX_CHARS:
        raise invalid({HEADER: f"must be 1 to {MAX_CHARS} printable ASCII characters"})
    quoted = _STRUCTURED.fullmatch(raw)
    return re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else raw


def _hash_request() -> bytes:
    whole = sha256()
    for part in (request.method.encode(), request.full_path.encode(), request.get_data()):
        whole.update(len(part).to_bytes(8, "big") + part)
    return whole.digest()


def _answer(conn: Session, view: Callable[[], Response]) -> Response:
    """The view's answer, or a final refusal, whose changes are rolled back. Raises errors that are not stored."""
    g.session = conn
    try:
        with conn.transaction():
            return view()
    except ApiError as error:
        if error.status not in _CLIENT_ERRORS or error.status in _NOT_KEPT:
            raise
        return on_api_error(error)
    finally:
        del g.session


def _write(answer: Response) -> str:
    headers = {name: answer.headers[name] for name in _KEPT_HEADERS if name in answer.headers}
    return json.dumps([answer.status_code, headers, answer.get_data(as_text=True)])


def _answer_again(kept: KeptAnswer, key: str, request_hash: bytes) -> Response:
    if kept.request_hash != request_hash:
        message = "This Idempotency-Key came with another request before; use a new key for each."
        raise ApiError(422, "idempotency_key_reused", message, details={HEADER: "came with another request before"})
    try:
        opened = services().secret_box.open(kept.sealed_answer, _bound_to(key), Purpose.ANSWER)
    except SealError:
        message = "This request was done, but its answer cannot be read any more; look at what it made."
        raise ApiError(409, "idempotent_answer_lost", message) from None
    status, headers, body = json.loads(opened)
    return Response(body, status, {**headers, REPLAYED: "true"}, mimetype="application/json")


def _bound_to(key: str) -> str:
    return idempotency.bound_to(account_id(), key)
