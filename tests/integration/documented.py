"""Whether an answer is what `/openapi.json` says: its status, its headers, and every field of its body, none beyond."""

import re
from typing import Any
from weakref import WeakKeyDictionary

from flask import Flask
from flask.testing import FlaskClient
from jsonschema_rs import Draft202012Validator
from werkzeug.exceptions import HTTPException
from werkzeug.test import TestResponse

from services.api.openapi import BASE

_documents: WeakKeyDictionary[Flask, Any] = WeakKeyDictionary()


def document_of(app: Flask) -> Any:
    if app not in _documents:
        _documents[app] = FlaskClient(app, TestResponse).get(f"{BASE}/openapi.json").json
    return _documents[app]


def template_of(rule: str) -> str:
    """Flask's `/webhooks/<webhook_id>` as the document writes it: `/webhooks/{webhookId}`."""
    camel = re.sub(r"_(\w)(?=\w*>)", lambda found: found[1].upper(), rule.removeprefix(BASE))
    return camel.replace("<", "{").replace(">", "}")


def check(app: Flask, answer: TestResponse) -> None:
    """Raises AssertionError. Answers that no operation gave, such as 405, are not its business."""
    path, method = answer.request.path, answer.request.method
    try:
        rule, _ = app.url_map.bind("").match(path, method, return_rule=True)
    except HTTPException:
        return
    if not rule.rule.startswith(BASE):
        return
    document = document_of(app)
    template = template_of(rule.rule)
    said = document["paths"][template]["get" if method == "HEAD" else method.lower()]["responses"]
    where = f"{method} {template} → {answer.status_code}"
    assert str(answer.status_code) in said, f"{where}: the document has no such status"
    expected = said[str(answer.status_code)]
    if "$ref" in expected:
        expected = document["components"]["responses"][expected["$ref"].rpartition("/")[2]]
    required = {name for name, header in expected.get("headers", {}).items() if header.get("required")}
    assert required <= set(answer.headers.keys()), f"{where}: a header is missing"
    if "content" not in expected:
        assert answer.data == b"", f"{where}: there is a body"
    elif method != "HEAD":
        schema = _closed({"components": document["components"]} | expected["content"]["application/json"]["schema"])
        faults = [
            f"{list(fault.instance_path)}: {fault.message}" for fault in _validator(schema).iter_errors(answer.json)
        ]
        assert faults == [], f"{where}: {faults}"


def _validator(schema: Any) -> Draft202012Validator:
    return Draft202012Validator(schema, validate_formats=True)


def _closed(schema: Any) -> Any:
    """Readers may meet new fields one day; we may have none that is not described."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(each) for name, each in schema.items()}
    return {"additionalProperties": False} | closed if "properties" in schema else closed
