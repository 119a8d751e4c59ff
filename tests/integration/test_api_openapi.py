"""`/openapi.json` against the API as it is: its routes, its validation, and what schemathesis makes of both.

That every answer of every other test is as described is seen to by `documented`, through the test client.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from documented import check, document_of, template_of
from flask import Response

from go2hooks.core.domain.event import SUBSCRIBABLE
from services.api import webhooks
from services.api.openapi import BASE, document
from services.api.operations import DECLARED, Returns, operation
from services.api.shapes.webhooks import DeletedWebhook


def operations(app):
    return {
        (path, method.upper()): described
        for path, methods in document_of(app)["paths"].items()
        for method, described in methods.items()
    }


def test_every_route_is_described_and_nothing_else(app):
    routes = {
        (template_of(rule.rule), method)
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith(BASE)
        for method in rule.methods - {"HEAD"}
    }
    assert set(operations(app)) == routes
    assert routes


def test_the_document_is_printed_without_a_server(app):
    """As `make lint-api` reads it."""
    tool = Path(__file__).parents[2] / "tools" / "openapi.py"
    done = subprocess.run([sys.executable, str(tool)], capture_output=True, check=True, timeout=60)
    assert json.loads(done.stdout)["paths"].keys() == document_of(app)["paths"].keys()


def test_what_a_query_must_have_is_said(app):
    described = operations(app)["/webhooks/{webhookId}/replay-estimate", "GET"]["parameters"]
    assert {each["name"] for each in described if each["in"] == "query" and each["required"]} == {"from", "only"}


def test_a_route_that_declares_nothing_is_refused_at_start(app):
    app.view_functions["webhooks.get_webhook"] = Response
    with pytest.raises(KeyError):
        document(app)


def test_it_is_told_without_a_key_at_both_addresses(app):
    client = app.test_client()
    answers = [client.get(path) for path in ("/api/v1/openapi.json", "/openapi.json")]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].data == answers[1].data
    assert answers[0].json["openapi"].startswith("3.1")


def test_the_page_to_try_it_on_comes_from_this_host_alone(app):
    client = app.test_client()
    page = client.get("/docs", buffered=True)
    assert page.mimetype == "text/html"
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    assert len(addresses) == 5
    for address in addresses:
        assert client.get(f"/{address}", buffered=True).status_code == 200, address
    assert "http" not in client.get("/docs/start.js", buffered=True).text
    for other in ("/docs/index.html", "/docs/..%2fapp.py", "/docs/nothing.js", "/docs/"):
        assert client.get(other).status_code == 404
        assert client.get(other).is_json


def test_every_reference_leads_somewhere_and_names_are_unique(app):
    told = document_of(app)

    def references(part):
        if isinstance(part, dict):
            yield from ([part["$ref"]] if "$ref" in part else [])
        for each in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            yield from references(each)

    for reference in references(told):
        _, _, kind, name = reference.split("/")
        assert name in told["components"][kind]
    names = [described["operationId"] for described in operations(app).values()]
    assert len(set(names)) == len(names)


def test_every_field_and_parameter_is_described(app):
    told = document_of(app)
    fields = {
        f"{model}.{name}": field
        for model, schema in told["components"]["schemas"].items()
        for name, field in schema.get("properties", {}).items()
    }
    parameters = {
        f"{described['operationId']}.{parameter['name']}": parameter
        for described in operations(app).values()
        for parameter in described.get("parameters", [])
        if parameter["in"] != "path"
    }
    assert [name for name, part in (fields | parameters).items() if not part.get("description")] == []
    assert [described["operationId"] for described in operations(app).values() if not described["description"]] == []


def test_the_examples_of_bodies_are_taken_as_they_are(app, acme):
    webhook_id = acme.create()["id"]
    for (path, method), described in operations(app).items():
        if "requestBody" in described:
            schema = described["requestBody"]["content"]["application/json"]["schema"]
            schema = document_of(app)["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
            if not schema["properties"] or path.endswith("/client-certificate"):  # whose example would soon expire
                continue
            for example in schema["examples"]:
                answer = acme(method, path.replace("{webhookId}", webhook_id), example)
                assert answer.status_code in (200, 201, 202), (path, answer.json)


def test_the_rules_of_a_body_are_those_that_are_enforced(app, acme):
    schema = document_of(app)["components"]["schemas"]["CreateBody"]
    assert schema["required"] == ["name", "url", "events"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["events"]["items"]["enum"] == list(SUBSCRIBABLE)
    longest = schema["properties"]["name"]["maxLength"]
    hook = {"url": "https://example.com/", "events": ["click"]}
    statuses = [acme("POST", "/webhooks", hook | {"name": "x" * n}).status_code for n in (longest, longest + 1)]
    assert statuses == [201, 422]


def test_optional_bodies_and_parameters_are_told_as_such(app):
    told = operations(app)
    bodies = {
        described["operationId"]: described["requestBody"]["required"]
        for described in told.values()
        if "requestBody" in described
    }
    assert bodies == {
        "createWebhook": True,
        "changeWebhook": True,
        "sendTestEvent": False,
        "redeliver": False,
        "makeCurl": False,
        "rotateSecret": False,
        "putCertificate": True,
        "createKey": True,
        "startReplay": True,
    }
    parameters = told["/webhooks/{webhookId}/deliveries", "GET"]["parameters"]
    assert [parameter["name"] for parameter in parameters] == [
        "webhookId", "cursor", "perPage", "status", "event", "since", "until"]  # fmt: skip
    assert not any("anyOf" in parameter["schema"] for parameter in parameters)


@pytest.mark.parametrize("spoil", ["status", "field", "header"])
def test_an_answer_that_is_not_as_described_is_found(app, acme, spoil):
    acme.create()
    answer = acme("POST", "/webhooks", {"name": "n", "url": "https://example.com/", "events": ["*"]})
    check(app, answer)
    match spoil:
        case "status":
            answer.status_code = 200
        case "header":
            del answer.headers["Location"]
        case "field":
            answer.set_data(answer.data.replace(b'"name"', b'"neuf":1,"name"'))
    with pytest.raises(AssertionError):
        check(app, answer)


def test_what_a_view_takes_is_what_its_annotations_say():
    @operation("Nothing", Returns(DeletedWebhook))
    def nothing(webhook_id: str, body: webhooks.NoBody) -> Response:
        """What it does."""

    try:
        declared = DECLARED[nothing]
    finally:
        del DECLARED[nothing]
    assert (declared.name, declared.description) == ("nothing", "What it does.")
    assert (declared.query, declared.body) == (None, webhooks.NoBody)
