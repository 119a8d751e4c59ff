"""The catalogue of event types."""

import random

import pytest
from jsonschema_rs import Draft202012Validator

from go2hooks.core.domain.event import EventType
from go2hooks.core.domain.samples import sample_data


@pytest.fixture
def catalogue(acme):
    answer = acme("GET", "/event-types")
    assert answer.status_code == 200, answer.text
    return {entry["name"]: entry for entry in answer.json["data"]}


def test_it_lists_the_event_types_in_the_order_of_the_documentation(catalogue):
    assert list(catalogue) == list(EventType)


def test_what_an_event_type_says_comes_from_its_avro_schema(catalogue):
    click = catalogue["click"]
    assert click["description"] == "A visitor opened a short link."
    assert list(click["schema"]["properties"]) == list(click["example"]["data"])
    assert click["schema"]["properties"]["country"] == {
        "type": ["string", "null"],
        "description": "the visitor's country, ISO 3166-1 alpha-2; null when unknown",
    }
    assert catalogue["domain.verified"]["schema"]["properties"]["method"]["enum"][:3] == [
        "dns_txt",
        "dns_cname",
        "http",
    ]


@pytest.mark.parametrize("kind", EventType)
def test_examples_and_what_is_really_sent_fit_the_schema(catalogue, kind):
    entry, source = catalogue[kind], random.Random(5)
    assert list(entry["example"]) == ["event", "timestamp", "data"]
    assert entry["example"]["event"] == kind
    schema = Draft202012Validator(entry["schema"])
    for data in [entry["example"]["data"], *(sample_data(kind, source) for _ in range(100))]:
        schema.validate(data)
        assert list(data) == entry["schema"]["required"]
    assert not schema.is_valid({})


def test_an_example_is_one_that_a_test_event_sends(acme, catalogue, outbox):
    hook = acme.create(events=["*"])["id"]
    for kind, entry in catalogue.items():
        acme("POST", f"/webhooks/{hook}/test", {"event": kind})
        assert acme.client.application.json.loads(outbox.deliveries[-1].body)["data"] == entry["example"]["data"]


def test_it_needs_a_key_and_can_only_be_read(app, acme):
    assert app.test_client().get("/api/v1/event-types").status_code == 401
    assert acme("POST", "/event-types", {}).status_code == 405
