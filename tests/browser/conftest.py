"""A real Chromium before the whole stack. What a page must never do is looked for in every test: see `Watch`."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from measuring import Measured
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from recording import Recorder
from running import Account, Stack
from seeding import Seeded, seed
from watching import Watch

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
OPERATORS = "acc_operators"
WITHIN_MS = 20_000  # on a busy machine; nothing waits longer than what it waits for
expect.set_options(timeout=WITHIN_MS)

NewPage = Callable[..., Page]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    without_sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # which Chromium refuses to root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=without_sandbox)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    # Not pytest's own directory: it takes away the permission by which an unprivileged Postgres gets there.
    with tempfile.TemporaryDirectory(prefix="go2hooks-browser-", ignore_cleanup_errors=True) as directory:
        stack = Stack(Path(directory), GO2HOOKS_OPERATORS_ACCOUNT=OPERATORS)
        stack.start()
        with stack.service("router.replay"):
            yield stack
        stack.stop()


@pytest.fixture(scope="session")
def site(stack: Stack) -> str:
    """The dashboard's address, without a path."""
    return stack.api.url


@pytest.fixture
def account(stack: Stack) -> Account:
    return stack.account()


@pytest.fixture(scope="session")
def operators(stack: Stack) -> Account:
    """The account whose keys see the whole deployment."""
    return stack.account(OPERATORS)


@pytest.fixture(scope="session")
def seeded(operators: Account, receiver: Recorder) -> Seeded:
    """An account that has something to show on every page."""
    return seed(operators, receiver)


@pytest.fixture(scope="session")
def receiver() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.close()


@pytest.fixture
def watch(site: str) -> Iterator[Watch]:
    """Over all pages of the test; a test that provokes a fault takes it away with `watch.take`."""
    watch = Watch(site)
    yield watch
    assert watch.faults == []


@pytest.fixture
def new_context(chromium: Browser, site: str, watch: Watch) -> Iterator[Callable[..., BrowserContext]]:
    """Makes a browser of its own, without cookies, of the given options."""
    with ExitStack() as at_end:

        def make(**options: Any) -> BrowserContext:
            wanted = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"} | options
            context = chromium.new_context(base_url=site, **wanted)
            context.set_default_timeout(WITHIN_MS)
            watch.over(context)
            at_end.callback(context.close)
            return context

        yield make


@pytest.fixture
def new_page(new_context: Callable[..., BrowserContext], account: Account) -> NewPage:
    """Makes a page that is signed in, with another key than the account's if one is given."""

    def make(key: str | None = None, **options: Any) -> Page:
        page = new_context(**options).new_page()
        sign_in(page, key or account.key)
        return page

    return make


@pytest.fixture
def page(new_page: NewPage) -> Page:
    """Signed in as the test's account, at the list of webhooks."""
    return new_page()


def sign_in(page: Page, key: str) -> None:
    page.goto("/sign-in")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()


FIGURES = pytest.StashKey[dict[str, Measured]]()


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> dict[str, Measured]:
    """By page; what is put in is printed at the end."""
    return pytestconfig.stash.setdefault(FIGURES, {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = config.stash.get(FIGURES, {})
    if found:
        terminalreporter.section("pages, with an empty cache")
        terminalreporter.line(f"{'page':<20} {'first paint':>12} {'weight':>10} {'shift':>6}")
    for name, page in found.items():
        terminalreporter.line(
            f"{name:<20} {page.paint_ms:>9.0f} ms {page.transferred / 1024:>6.1f} KiB {page.shift:>6.3f}"
        )
