"""`GET /openapi.json`: the API's OpenAPI 3.1 document, made from its routes and their declarations."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from http import HTTPStatus
from itertools import chain
from typing import Any, Final, Literal, NamedTuple, get_args, get_type_hints

from flask import Blueprint, Flask, Response
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from typing_extensions import is_typeddict

import go2hooks
from services.api import idempotency
from services.api.answers import as_json
from services.api.deliveries import DELIVERY_ID
from services.api.keys import KEY_ID
from services.api.operations import DECLARED, DeclaredOperation, Returns
from services.api.replays import REPLAY_ID
from services.api.shapes.answers import ErrorBody
from services.api.webhooks import WEBHOOK_ID

BASE: Final = "/api/v1"
_PATH: Final = f"{BASE}/openapi.json"
_REF: Final = "#/components/schemas/{model}"
_ANSWER_REF: Final = "#/components/responses/Error{}"
_ADDRESSES: Final = {  # by Flask's name for a part of the path
    "webhook_id": ("webhookId", f"^{WEBHOOK_ID.pattern}$"),
    "delivery_id": ("deliveryId", f"^{DELIVERY_ID.pattern}$"),
    "key_id": ("keyId", f"^{KEY_ID.pattern}$"),
    "replay_id": ("replayId", f"^{REPLAY_ID.pattern}$"),
}

_DESCRIPTION: Final = """\
Webhooks of an account, and what became of their deliveries. Every answer is `{"success": true, "data": …}` or
`{"success": false, "error": …}`. Times are ISO 8601 in UTC. What reads nothing but HTTP may be refused before it gets to
an operation: 400, 404, 405, 413, 431, in the same envelope. A POST with an `Idempotency-Key` may be repeated for 24 hours:
it is done once, and answered again as it was.
"""
_ERRORS: Final = {
    400: "The body is not valid JSON.",
    401: "There is no API key, or it is unknown, was revoked or has expired.",
    403: "The API key lacks the scope that this needs; `message` names it.",
    404: "The account has no webhook or key with this id, or the webhook no such delivery or replay, or no client certificate.",
    409: "The account has as many webhooks or running replays as it may have, a replay of the webhook is running, a webhook to replay to is disabled, a client certificate would go with an http URL, it is the last admin key, or a delivery is under way, or a request with this Idempotency-Key is under way.",
    410: "Kafka no longer has the payload.",
    412: "The webhook is not the version that `If-Match` names.",
    413: "The body is too large.",
    415: "The body is not sent as application/json.",
    422: "Some fields are not valid, or the Idempotency-Key came with another request before; `details` names each.",
    429: "Too many requests, or too many wrong keys.",
    503: "A server that the API needs is away, too much is under way, or the answer takes too long.",
}
_SECONDS: Final = {"schema": {"type": "integer", "minimum": 1}, "required": True, "description": "Seconds to wait."}
_TEXT: Final = {"schema": {"type": "string"}, "required": True}
_LIMIT_HEADERS: Final = {
    "RateLimit": {
        "schema": {"type": "string"},
        "description": "What the API key may still ask, where there is a limit: requests left, and seconds until all are back.",
        "example": '"requests";r=1999;t=1',
    },
    "RateLimit-Policy": {
        "schema": {"type": "string"},
        "description": "How many requests the API key may send in how many seconds.",
        "example": '"requests";q=2000;w=10',
    },
}
_ETAG: Final = {
    "schema": {"type": "string", "pattern": '^"[0-9a-f]{32}"$'},
    "required": True,
    "description": "Names this version of the webhook.",
}
_REPLAYED: Final = {
    "schema": {"const": "true"},
    "required": False,
    "description": "The request was done before: this is what it was answered then.",
}
_IDEMPOTENCY_KEY: Final = {
    "name": idempotency.HEADER,
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": idempotency.MAX_CHARS, "pattern": idempotency.PATTERN},
    "description": "Makes it safe to repeat the request for 24 hours: a new one, such as a UUID, for each.",
}
_IF_MATCH: Final = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "An ETag: the request is for this version of the webhook alone.",
}
_IF_NONE_MATCH: Final = _IF_MATCH | {
    "name": "If-None-Match",
    "description": "An ETag that you have: the answer is 304 while it is the webhook's.",
}
_LIMITS: Final[dict[str, Any]] = {name: {"$ref": f"#/components/headers/{name}"} for name in _LIMIT_HEADERS}
_NOT_MODIFIED: Final = {
    "description": "The webhook is as `If-None-Match` names it; there is no body.",
    "headers": {"ETag": _ETAG} | _LIMITS,
}
_ERROR_HEADERS: Final = {
    401: {"WWW-Authenticate": _TEXT},
    403: {"WWW-Authenticate": _TEXT},
    429: {"Retry-After": _SECONDS},
    503: {"Retry-After": _SECONDS},
}


class _UntitledSchemas(GenerateJsonSchema):
    """Omits titles of fields, which would only repeat their names."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002  # pydantic's signature
        return False


class _Components:
    """The schemas of all types in the document, each by reference."""

    def __init__(self, types: Iterable[Any]) -> None:
        keys: list[tuple[Any, Literal["validation"], TypeAdapter[Any]]] = [
            (kind, "validation", TypeAdapter(kind)) for kind in dict.fromkeys(types)
        ]
        by_kind, rest = TypeAdapter.json_schemas(keys, ref_template=_REF, schema_generator=_UntitledSchemas)
        self._by_kind = {kind: schema for (kind, _), schema in by_kind.items()}
        self.schemas: dict[str, Any] = rest["$defs"]
        for kind in dict.fromkeys(chain.from_iterable(map(_typed_dicts, self._by_kind))):
            self._describe_inherited(kind)

    def _describe_inherited(self, kind: Any) -> None:
        """Add the descriptions of a TypedDict's inherited fields: pydantic reads only its own."""
        for base in getattr(kind, "__orig_bases__", ()):
            if is_typeddict(base):
                inherited = _Components([base])
                for name, field in inherited.fields_of(base).items():
                    self.fields_of(kind)[name].setdefault("description", field["description"])

    def of(self, kind: Any) -> dict[str, Any]:
        return self._by_kind[kind]

    def fields_of(self, kind: type[Any]) -> dict[str, Any]:
        fields: dict[str, Any] = self.schemas[kind.__name__]["properties"]
        return fields


def _typed_dicts(kind: Any) -> Iterator[Any]:
    """A TypedDict, and those in its fields."""
    if is_typeddict(kind):
        yield kind
        for hint in get_type_hints(kind).values():
            yield from _typed_dicts(hint)
    for part in get_args(kind):
        yield from _typed_dicts(part)


class _Route(NamedTuple):
    path: str  #: as Flask writes it
    arguments: tuple[str, ...]
    method: str
    operation: DeclaredOperation
    tag: str


def openapi_blueprint(app: Flask) -> Blueprint:
    """The document of all that `app` serves below the base path by now. Raises KeyError for a route that declares nothing."""
    blueprint = Blueprint("openapi", __name__)
    routes = tuple(_routes(app))

    @blueprint.get(_PATH)
    @blueprint.get("/openapi.json")  # where tools look for it
    def openapi() -> Response:
        return as_json(_document(routes), 200)

    return blueprint


def document(app: Flask) -> dict[str, Any]:
    """What `/openapi.json` answers. Raises KeyError for a route that declares nothing."""
    return _document(tuple(_routes(app)))


def _routes(app: Flask) -> Iterator[_Route]:
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith(BASE) and rule.rule != _PATH:  # which describes itself below
            operation = DECLARED[app.view_functions[rule.endpoint]]
            for method in sorted((rule.methods or set()) - {"HEAD"}):
                tag = rule.endpoint.partition(".")[0].replace("_", " ").capitalize()
                yield _Route(rule.rule, tuple(sorted(rule.arguments)), method, operation, tag)


@cache  # takes 0.1 s, at the first request and not at the start
def _document(routes: tuple[_Route, ...]) -> dict[str, Any]:
    components = _Components(_types(route.operation for route in routes))
    paths: dict[str, Any] = {_PATH.removeprefix(BASE): {"get": _SELF}}
    for route in routes:
        paths.setdefault(_template(route), {})[route.method.lower()] = _described(route, components)
    for operation in DECLARED.values():
        if operation.query is not None:
            components.schemas.pop(operation.query.__name__, None)  # each of its fields has become a parameter
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Go2 Webhooks",
            "version": go2hooks.__version__,
            "description": _DESCRIPTION,
            "contact": {"name": "Go2"},
        },
        "servers": [{"url": BASE}],
        "security": [{"apiKey": []}],
        "tags": [{"name": tag} for tag in dict.fromkeys((*(route.tag for route in routes), *_SELF["tags"]))],
        "paths": paths,
        "components": {
            "securitySchemes": {"apiKey": {"type": "http", "scheme": "bearer"}},
            "schemas": components.schemas,
            "headers": _LIMIT_HEADERS,
            "responses": {f"Error{status}": _failure(status, components) for status in _ERRORS},
        },
    }


def _types(operations: Iterable[DeclaredOperation]) -> Iterator[Any]:
    yield ErrorBody
    for operation in operations:
        kinds = (operation.query, operation.body, *chain.from_iterable((a.data, a.meta) for a in operation.answers))
        yield from (kind for kind in kinds if kind is not None)


def _described(route: _Route, components: _Components) -> dict[str, Any]:
    operation = route.operation
    first, *rest = operation.name.split("_")
    described: dict[str, Any] = {
        "operationId": first + "".join(map(str.capitalize, rest)),
        "tags": [route.tag],
        "summary": operation.summary,
        "description": operation.description,
        "parameters": [*_of_path(route), *_of_query(operation, components), *_of_header(route)],
        "responses": {str(answer.status): _success(answer, route, components) for answer in operation.answers}
        | ({"304": _NOT_MODIFIED} if _is_conditional(route) else {})
        | {str(status): {"$ref": _ANSWER_REF.format(status)} for status in sorted(_errors(route))},
    }
    if operation.body is not None:
        for field in components.fields_of(operation.body).values():
            field.pop("default", None)  # ours stand for a field that is not there
        content = {kind: {"schema": components.of(operation.body)} for kind in operation.body.media_types}
        described["requestBody"] = {"required": not operation.body.may_be_missing, "content": content}
    return described


def _template(route: _Route) -> str:
    path = route.path.removeprefix(BASE)
    for name in route.arguments:
        path = path.replace(f"<{name}>", f"{{{_ADDRESSES[name][0]}}}")
    return path


def _of_path(route: _Route) -> Iterator[dict[str, Any]]:
    for argument in route.arguments:
        name, pattern = _ADDRESSES[argument]
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": pattern}}


def _of_query(operation: DeclaredOperation, components: _Components) -> Iterator[dict[str, Any]]:
    if operation.query is None:
        return
    required = {field.alias or name for name, field in operation.query.model_fields.items() if field.is_required()}
    for name, field in components.fields_of(operation.query).items():
        # A query string cannot hold None.
        [schema] = (kind for kind in field.get("anyOf", [field]) if kind != {"type": "null"})
        schema = {key: value for key, value in schema.items() if (key, value) != ("default", None)}
        described = {"description": field["description"]} if "description" in field else {}
        schema.pop("description", None)
        yield {"name": name, "in": "query", "required": name in required, "schema": schema} | described


def _of_header(route: _Route) -> Iterator[dict[str, Any]]:
    if route.method == "POST":
        yield _IDEMPOTENCY_KEY
    if 412 in route.operation.errors:  # noqa: PLR2004  # what If-Match is for
        yield _IF_MATCH
    if _is_conditional(route):
        yield _IF_NONE_MATCH


def _is_conditional(route: _Route) -> bool:
    return route.method == "GET" and any(answer.has_etag for answer in route.operation.answers)


def _errors(route: _Route) -> Iterator[int]:
    operation = route.operation
    yield from (401, 403, 429, 503, *operation.errors)
    if route.arguments:
        yield 404
    if operation.body is not None:
        yield from (400, 413, 415)
    if operation.body is not None or operation.query is not None:
        yield 422
    if route.method == "POST":
        yield from (409, 422)


def _success(answer: Returns, route: _Route, components: _Components) -> dict[str, Any]:
    fields = {"success": {"const": True}, "data": components.of(answer.data)}
    if answer.meta is not None:
        fields["meta"] = components.of(answer.meta)
    headers: dict[str, Any] = {"Location": _TEXT} if answer.has_location else {}
    if answer.has_etag:
        headers["ETag"] = _ETAG
    if route.method == "POST":
        headers[idempotency.REPLAYED] = _REPLAYED
    if answer.may_retry:
        headers["Retry-After"] = _SECONDS | {"required": False}
    return _response(HTTPStatus(answer.status).phrase, fields, headers | _LIMITS)


def _failure(status: int, components: _Components) -> dict[str, Any]:
    fields = {"success": {"const": False}, "error": components.of(ErrorBody)}
    limits = {} if status == HTTPStatus.UNAUTHORIZED else _LIMITS  # of a key that is known
    return _response(_ERRORS[status], fields, _ERROR_HEADERS.get(status, {}) | limits)


def _response(description: str, fields: Mapping[str, Any], headers: Mapping[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": fields, "required": list(fields)}
    content = {"application/json": {"schema": schema}}
    return {"description": description, "content": content} | ({"headers": headers} if headers else {})


_SELF: Final[dict[str, Any]] = {
    "operationId": "openapi",
    "summary": "This document",
    "description": "Also at `/openapi.json` of the host; `/docs` is a page to read and try it on.",
    "tags": ["Document"],
    "security": [],
    "responses": {
        "200": {"description": "OpenAPI 3.1", "content": {"application/json": {"schema": {"type": "object"}}}}
    },
}
