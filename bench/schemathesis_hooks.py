"""What schemathesis has to know of the API that its document cannot say: which addresses are public, which times we read."""

import uuid
from datetime import UTC, datetime
from typing import Any

import schemathesis
import trustme
from hypothesis import strategies as st

from go2hooks.core.errors import HeaderError
from go2hooks.core.security.custom_headers import check_name

_LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True).filter(lambda label: label[2:4] != "--")
_PATHS = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters='"#%<>[\\]^`{|}'), max_size=60
)


_ISSUED = trustme.CA().issue_cert("client.example.com")
CERTIFICATE = {
    "certificate": "".join(part.bytes().decode() for part in _ISSUED.cert_chain_pems),
    "privateKey": _ISSUED.private_key_pem.bytes().decode(),
}


_WEBHOOKS = ("/webhooks", "/webhooks/{webhookId}")


def _fit(body: dict[str, Any]) -> None:
    """A secret value may be left out only where there is one, some names are not the customer's, a filter fits the events."""
    if isinstance(body.get("headers"), dict):
        body["headers"] = {name: header for name, header in body["headers"].items() if _is_allowed(name, header)}
    if body.get("filter"):
        body["events"] = ["*"]
    elif "events" in body:
        body["filter"] = None  # the webhook may have one that does not fit them


def _is_allowed(name: str, header: Any) -> bool:
    try:
        check_name(name)
    except HeaderError:
        return False
    return isinstance(header, str) or header.get("value") is not None


def _url(labels: list[str], port: str, path: str) -> str:
    return f"https://{'.'.join(labels)}.example.com{port}/{path}"


schemathesis.openapi.format(
    "uri", st.builds(_url, st.lists(_LABELS, min_size=1, max_size=4), st.sampled_from(("", ":443", ":8443")), _PATHS)
)
schemathesis.openapi.format(
    "date-time",
    st.datetimes(datetime(1970, 1, 2), datetime(9998, 12, 30), timezones=st.just(UTC)).map(datetime.isoformat),  # noqa: DTZ001  # hypothesis wants them without a zone
)


#: What a query of that address leaves out: a start and an end that fit each other and the step; events that the webhook subscribes to.
_LEFT_OUT = {"stats": ("from", "to", "step"), "replay-estimate": ("events", "to")}


@schemathesis.hook
def before_call(_context: schemathesis.HookContext, case: schemathesis.Case, **_options: object) -> None:
    """A cursor is what a list gave, a certificate goes with its key, a key ends later than now, an Idempotency-Key is new, an ETag the webhook's; times fit.

    Where the request is to be a wrong one, any will do.
    """
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    for name in ("cursor", *_LEFT_OUT.get(case.path.rpartition("/")[2], ())) if case.query else ():
        case.query.pop(name, None)
    if case.query and case.path.endswith("/replay-estimate"):
        case.query["from"] = "2024-01-01T00:00:00Z"  # of what is to come there is nothing
    case.headers.pop("If-Match", None)
    if "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
    if case.method == "POST" and case.path == "/keys" and isinstance(case.body, dict) and case.body.get("expiresAt"):
        case.body["expiresAt"] = "9000-01-01T00:00:00Z"
    if case.method in ("POST", "PATCH") and case.path in _WEBHOOKS and isinstance(case.body, dict):
        _fit(case.body)
    if case.method == "POST" and case.path.endswith("/replays") and isinstance(case.body, dict):
        case.body = {"from": "2024-01-01T00:00:00Z", "only": case.body.get("only", "all")}
    if case.method == "PUT" and case.path.endswith("/client-certificate"):
        case.body = CERTIFICATE
