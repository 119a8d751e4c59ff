"""`go2hooks listen` as developers use it: subscribed for as long as it runs, and handing on what comes."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from environment import clean_environment
from recording import Reply
from running import DELAYS_S, Account, assert_not_early
from waiting import eventually

from go2hooks.core.security.signing import verify_body_signature, verify_standard

GO2HOOKS = Path(sys.executable).with_name("go2hooks")
STARTED_S = 60.0


def _heed_signals() -> None:
    """As in a terminal: what `nohup` or a shell's `&` has these tests ignore, the listener would ignore, too."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Listener:
    """A `go2hooks listen` at a free port."""

    def __init__(self, *arguments: str, log: Path, stdin: str = "") -> None:
        self._log = log
        env = clean_environment() | {"COLUMNS": "300", "PYTHONUNBUFFERED": "1"}
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [GO2HOOKS, "listen", "--port", "0", *arguments],
                stdin=subprocess.PIPE, stdout=out, stderr=out, env=env, preexec_fn=_heed_signals,  # noqa: PLW1509  # no thread forks here
            )  # fmt: skip
        self.process.stdin.write(stdin.encode())
        self.process.stdin.close()

    @property
    def said(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def wait(self, pattern: str) -> re.Match[str]:
        """Until it has said so."""

        def check() -> re.Match[str] | None:
            found = re.search(pattern, self.said)
            assert found or self.process.poll() is None, self.said
            return found

        return eventually(check, STARTED_S)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def listen(account: Account, tmp_path: Path) -> Iterator[Callable[..., Listener]]:
    """Starts a listener that subscribes for the account, and waits until the router knows its webhook."""
    listeners = []

    def start(*arguments: str) -> Listener:
        address = f"http://127.0.0.1:{account.stack.api.port}"
        listener = Listener("--api", address, "--key", account.key, *arguments, log=tmp_path / f"{len(listeners)}.log")
        listeners.append(listener)
        listener.wait("until you stop")
        account.stack.wait_routed()
        return listener

    yield start
    for listener in listeners:
        listener.end(signal.SIGKILL)


def webhooks(account: Account) -> list[dict]:
    return account.call("GET", "/webhooks").data


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_listener_has_a_webhook_for_as_long_as_it_runs(account, listen, number):
    listener = listen()
    (webhook,) = webhooks(account)
    assert (webhook["name"], webhook["events"]) == ("go2hooks listen", ["*"])
    account.emit()
    line = listener.wait(r"click attempt 1 of dlv_\w+ (\d+) ms after the event both signatures right answered 200\n")
    assert int(line[1]) < 10_000
    assert listener.end(number) == 0
    assert "1 requests received" in listener.said
    assert webhooks(account) == []
    assert "whsec_" not in listener.said


def test_it_subscribes_to_what_it_is_told(account, listen, receiver):
    model = account.subscribe(receiver.endpoint().url, "link.created", "link.deleted")
    headers = {"X-Tenant": "acme", "Authorization": {"value": "Bearer 1", "secret": True}}
    account.change(model, filter={"slug": ["launch"]}, headers=headers)
    listen("--webhook", model["id"])
    listen("--event", "qr.scanned")
    made = (webhook for webhook in webhooks(account) if webhook["name"] == "go2hooks listen")
    as_model, as_told = sorted(made, key=lambda webhook: webhook["events"])
    assert as_model["events"] == ["link.created", "link.deleted"]
    assert (as_model["filter"], as_model["headers"]) == ({"slug": ["launch"]}, {"X-Tenant": "acme"})
    assert (as_told["events"], as_told["filter"], as_told["headers"]) == (["qr.scanned"], None, {})


def test_it_hands_on_what_came_and_answers_what_comes_back(account, listen, receiver):
    local, direct = receiver.endpoint(), receiver.endpoint(query="?to=all")
    busy = Reply(503, (("Retry-After", "1"), ("Content-Type", "text/plain")), b"too busy")
    local.answer = lambda request: busy if request.attempt == 1 else 204
    account.subscribe(direct.url)
    listener = listen("--forward", local.url, "--event", "click")
    secret = listener.wait(rf"{re.escape(local.url)} verifies with (whsec_\S+)")[1]
    account.emit(city="München\n\u2028")
    first, again = local.wait(2)
    (original,) = direct.wait()
    assert first.body == again.body == original.body
    assert sorted(first.names) == sorted(original.names)
    assert verify_body_signature(secret, first.body, first.headers["x-webhook-signature"])
    signed = (first.headers[f"webhook-{name}"] for name in ("id", "timestamp"))
    assert verify_standard([secret], *signed, first.body, first.headers["webhook-signature"])
    assert_not_early(local.answered[0], again.arrived, DELAYS_S[-1])  # the longest, for the Retry-After
    listener.wait(rf"both signatures right {re.escape(local.url)} answered 503 in \d+ ms\n")
    listener.wait(r"The answer: too busy\n")
    (webhook,) = (each for each in webhooks(account) if each["name"] == "go2hooks listen")
    (delivery,) = account.wait_history(webhook, "delivered")
    assert (delivery["statusCode"], delivery["attempts"]) == (204, 2)


def test_it_begins_with_what_a_webhook_got_last(account, listen, receiver):
    before, local = receiver.endpoint(), receiver.endpoint()
    model = account.subscribe(before.url)
    for number in (1, 2, 3):  # one after the other, so that their order is known
        account.emit(slug=f"zweité {number}", city="\u2028")
        before.wait(number)
    account.wait_history(model, "delivered", "delivered", "delivered")
    listener = listen("--webhook", model["id"], "--last", "2", "--forward", local.url)
    secret = listener.wait(r"verifies with (whsec_\S+)")[1]
    again = local.wait(2)
    assert [request.body for request in again] == [request.body for request in before.requests[1:]]
    assert [request.delivery for request in again] == [request.delivery for request in before.requests[1:]]
    assert sorted(again[0].names) == sorted(before.requests[1].names)
    assert verify_body_signature(secret, again[0].body, again[0].headers["x-webhook-signature"])
    listener.wait(r"both signatures right")
    assert len(account.wait_history(model, "delivered", "delivered", "delivered")) == len(before.requests) == 3


def test_what_cannot_be_handed_on_fails_and_says_why(account, listen):
    listener = listen("--forward", "http://127.0.0.1:1/")
    account.emit()
    listener.wait("answered 502: http://127.0.0.1:1/ cannot be reached: Connection refused")
    (webhook,) = webhooks(account)
    eventually(lambda: [each["statusCode"] for each in account.history(webhook)] == [502])


@contextmanager
def refused(log: Path, *arguments: str, stdin: str = "") -> Iterator[str]:
    """What it says when it does not begin."""
    listener = Listener(*arguments, log=log, stdin=stdin)
    assert listener.process.wait(STARTED_S) != 0
    assert "Traceback" not in listener.said
    yield listener.said


def test_a_wrong_key_and_an_unknown_webhook_are_refused_clearly(account, tmp_path):
    api = ("--api", f"http://127.0.0.1:{account.stack.api.port}/api/v1/")
    with refused(tmp_path / "key", *api, stdin="gk_wrong\n") as said:
        assert "API key" in said
        assert "key is " in said
    with refused(tmp_path / "webhook", *api, "--key", account.key, "--webhook", "wh_none") as said:
        assert "no webhook with this id" in said
    assert webhooks(account) == []


def test_a_deployment_that_allows_no_such_target_says_which_setting_would(account, tmp_path):
    strict = account.stack.service("api", "-strict", GO2HOOKS_ALLOW_INSECURE_TARGETS="false")
    strict.start()
    try:
        strict.wait_ready()
        api = ("--api", f"http://127.0.0.1:{strict.port}", "--key", account.key)
        with refused(tmp_path / "log", *api) as said:
            assert "GO2HOOKS_ALLOW_INSECURE_TARGETS=true" in said
            assert "--url" in said
    finally:
        strict.ask_to_stop()
        strict.wait_stopped(30)


def test_a_webhook_that_cannot_be_removed_is_named(account, tmp_path):
    api = account.stack.service("api", "-dying")
    api.start()
    api.wait_ready()
    try:
        arguments = ("--api", f"http://127.0.0.1:{api.port}", "--key", account.key)
        listener = Listener(*arguments, log=tmp_path / "log")
        webhook_id = listener.wait(r"The webhook (wh_\w+)")[1]
    finally:
        api.ask_to_stop()
        api.wait_stopped(30)
    assert listener.end() == 1
    assert (
        f"{webhook_id} could not be removed: DELETE {arguments[1]}/api/v1/webhooks/{webhook_id} does it"
        in listener.said
    )
