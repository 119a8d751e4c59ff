"""What the dispatcher knows of webhooks, between the replica that tells and Postgres that is asked."""

import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from go2hooks.core.domain.webhook import Webhook
from go2hooks.core.errors import SealError
from go2hooks.postgres.reconnecting import ReconnectingConnection
from go2hooks.postgres.secrets import SecretBox
from services.dispatcher import webhooks as module
from services.dispatcher.webhooks import Webhooks, gets_fresh_start

HOOK = Webhook("wh_1", "acme", "https://a.example/", frozenset({"click"}), True, False, b"", None, 0)  # noqa: FBT003


class Postgres(ReconnectingConnection):
    """One whose answer is on its way while `meanwhile` happens."""

    def __init__(self, found: Webhook | None) -> None:
        super().__init__("postgresql://nowhere", "tests")
        self.found = found
        self.meanwhile: Callable[[], object] = lambda: None

    async def run(self, _work: Callable[[Any], Awaitable[Any]]) -> Any:
        self.meanwhile()
        return self.found


def knowing(found: Webhook | None) -> tuple[Webhooks, Postgres]:
    postgres = Postgres(found)
    return Webhooks(SecretBox((os.urandom(32),)), postgres), postgres


@pytest.mark.parametrize("found", [HOOK, None])
async def test_what_postgres_says_of_a_webhook_is_known_from_then_on(found):
    webhooks, _ = knowing(found)
    assert not webhooks.knows(HOOK.id)
    await webhooks.fetch(HOOK.id)
    assert webhooks.knows(HOOK.id)
    assert webhooks.get(HOOK.id) == found


@pytest.mark.parametrize("found", [HOOK, None])
@pytest.mark.parametrize("news", [HOOK._replace(url="https://b.example/"), HOOK._replace(is_deleted=True)])
async def test_what_the_replica_tells_meanwhile_is_newer_than_the_answer(news, found):
    """It tells of each change once: overwritten, the webhook would stay as it was until its next one."""
    webhooks, postgres = knowing(found)
    postgres.meanwhile = lambda: webhooks.apply(news)
    await webhooks.fetch(HOOK.id)
    assert webhooks.knows(HOOK.id)
    assert webhooks.get(HOOK.id) == (None if news.is_deleted else news)


def test_a_previous_secret_that_does_not_open_leaves_the_present_one_to_sign():
    """As after a rotation that replaces what a lost key had sealed."""
    key, lost = SecretBox((os.urandom(32),)), SecretBox((os.urandom(32),))
    webhooks = Webhooks(key, Postgres(None))
    sealed = key.seal("new", HOOK.id)
    for previous, signing in ((key.seal("old", HOOK.id), ("new", "old")), (lost.seal("old", HOOK.id), ("new",))):
        hook = HOOK._replace(sealed_secret=sealed, sealed_previous_secret=previous, previous_secret_expires_ms=1000)
        with capture_logs() as said:
            assert [webhooks.secrets(hook, 999) for _ in range(3)] == [signing] * 3
        assert len(said) == (signing == ("new",))  # once, not with each delivery
        assert webhooks.secrets(hook, 1000) == ("new",)
    with pytest.raises(SealError):
        webhooks.secrets(HOOK._replace(sealed_secret=lost.seal("new", HOOK.id)), 999)


@pytest.mark.plain
async def test_so_many_that_are_gone_are_remembered(monkeypatch):
    monkeypatch.setattr(module, "_TOMBSTONES", 2)
    webhooks, _ = knowing(None)
    for n in range(3):
        await webhooks.fetch(f"wh_{n}")
    assert [webhooks.knows(f"wh_{n}") for n in range(3)] == [False, True, True]


@pytest.mark.parametrize(
    ("changes", "fresh"),
    [
        ({"url": "https://b.example/"}, True),
        ({"is_active": False}, True),
        ({"is_deleted": True}, True),
        ({"client_certificate": b"digest"}, True),
        ({"events": frozenset({"*"})}, False),
        ({"sealed_secret": b"other"}, False),
    ],
)
def test_a_change_of_where_things_go_lets_a_receiver_begin_anew(changes, fresh):
    assert gets_fresh_start(HOOK, HOOK._replace(**changes)) is fresh
    assert not gets_fresh_start(None, HOOK)
