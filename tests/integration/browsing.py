"""A browser without JavaScript, for the tests of the dashboard's pages."""

import re

import pytest

from go2hooks.postgres.api_keys import create_key

URL = "https://example.com/hooks"
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


class Browser:
    """Keeps cookies, and sends forms with what is hidden in them."""

    def __init__(self, app):
        self.client = app.test_client()
        self.page = ""

    def get(self, path, status=200):
        answer = self.client.get(path, follow_redirects=True, buffered=True)
        assert answer.status_code == status, answer.text
        self.page = answer.text
        return answer

    def post(self, path, status=200, **fields):
        token = re.search(r'name="csrf_token" value="([^"]*)"', self.page)
        answer = self.client.post(path, data={"csrf_token": token and token[1], **fields}, follow_redirects=True)
        assert answer.status_code == status, answer.text
        self.page = answer.text
        return answer

    def sign_in(self, key, status=200):
        self.get("/sign-in")
        return self.post("/sign-in", status, key=key)


@pytest.fixture
def browser(app):
    return Browser(app)


@pytest.fixture
def key(database):
    return create_key(database, "acme")


@pytest.fixture
def acme_browser(browser, key):
    browser.sign_in(key.key)
    return browser


def assert_only_our_scripts(page):
    assert all(re.match(r' (type="module" )?src="/static/', tag) for tag in re.findall(r"<script([^>]*)", page))
    assert EVIL not in page


def made(browser, name="Click Tracker"):
    """The id of a webhook that was made by the form."""
    browser.get("/webhooks/new")
    browser.post("/webhooks/new", 201, name=name, url=URL, events=["click"])
    return re.search(r"/webhooks/(wh_\w+)", browser.page)[1]
