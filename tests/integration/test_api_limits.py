"""Who guesses keys, or asks too often, waits; nobody else does."""

import pytest

from services.api.limits import RequestLimits


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(app, api_settings):
    """The app's limits on a clock of the test's own."""
    clock = Clock()
    [services] = [s for s in app.extensions.values() if hasattr(s, "limits")]
    object.__setattr__(services, "limits", RequestLimits(api_settings, clock))
    return clock


@pytest.fixture
def api_settings(api_settings):
    return api_settings.model_copy(update={"api_failed_logins_per_minute": 6, "api_requests_per_s": 3})


def guess(app, source="203.0.113.7", key="go2_wrong"):
    headers = {"Authorization": f"Bearer {key}"}
    return app.test_client().get("/api/v1/webhooks", headers=headers, environ_overrides={"REMOTE_ADDR": source})


def test_a_source_that_guesses_keys_has_to_wait(app, clock):
    answers = [guess(app, key=f"go2_{n}") for n in range(8)]
    assert [answer.status_code for answer in answers] == [401] * 6 + [429] * 2
    assert answers[-1].json["error"]["code"] == "too_many_requests"
    assert answers[-1].headers["Retry-After"] == "10"
    assert guess(app, source="203.0.113.8").status_code == 401
    clock.now += 10
    assert [guess(app).status_code for _ in range(2)] == [401, 429]


def test_a_key_that_was_right_is_served_whatever_its_neighbours_do(app, clock, acme, rival):
    assert acme("GET", "/webhooks").status_code == 200
    assert {guess(app, source="127.0.0.1").status_code for _ in range(10)} == {401, 429}
    assert acme("GET", "/webhooks").status_code == 200
    assert rival("GET", "/webhooks").status_code == 429  # never seen here: it cannot be told from a guess


def test_a_key_that_asks_too_often_waits_and_the_others_do_not(clock, acme, rival):
    statuses = [acme("GET", "/webhooks").status_code for _ in range(32)]
    assert statuses == [200] * 30 + [429] * 2
    assert acme("GET", "/webhooks").headers["Retry-After"] == "1"
    assert rival("GET", "/webhooks").status_code == 200
    clock.now += 1
    assert [acme("GET", "/webhooks").status_code for _ in range(4)] == [200] * 3 + [429]


def test_every_answer_to_a_known_key_says_what_is_left(app, clock, acme):
    answers = [
        acme("GET", "/webhooks"),
        acme("GET", "/webhooks/wh_none"),
        *(acme("GET", "/webhooks") for _ in range(29)),
    ]
    assert {answer.headers["RateLimit-Policy"] for answer in answers} == {'"requests";q=30;w=10'}
    told = [(answer.status_code, answer.headers["RateLimit"]) for answer in answers]
    assert told[:2] == [(200, '"requests";r=29;t=1'), (404, '"requests";r=28;t=1')]
    assert told[-2:] == [(200, '"requests";r=0;t=10'), (429, '"requests";r=0;t=10')]
    clock.now += 1
    assert acme("GET", "/webhooks").headers["RateLimit"] == '"requests";r=2;t=10'
    assert "RateLimit" not in guess(app).headers


def test_what_needs_no_key_is_not_limited(app, clock):
    client = app.test_client()
    assert {client.get("/healthz").status_code for _ in range(50)} == {200}
