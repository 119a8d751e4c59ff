"""Changing the key that encrypts webhook secrets: nothing stops, nobody notices, and the old key can go."""

import base64
import json
import threading
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from click.testing import CliRunner

from go2hooks.cli import main
from go2hooks.core.errors import SealError
from go2hooks.postgres.client_certificates import StoredCertificate, put
from go2hooks.postgres.key_rotation import reseal_all
from go2hooks.postgres.replica import WebhookFollower
from go2hooks.postgres.secrets import Purpose, SecretBox
from go2hooks.postgres.webhooks import NewWebhook, create, delete, rotate_secret
from go2hooks.settings import Settings

OLD, NEW, LOST = (letter * 32 for letter in (b"o", b"n", b"l"))
SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


@pytest.fixture
def old_box():
    return SecretBox([OLD])


@pytest.fixture
def new_box():
    return SecretBox([NEW, OLD])


@pytest.fixture
def add(database, old_box):
    """`add("wh_1")`: a webhook sealed with the old key."""
    database.execute("INSERT INTO accounts (id) VALUES ('acme')")

    def make(webhook_id, box=old_box):
        sealed = box.seal(f"{SECRET}-{webhook_id}", webhook_id)
        create(database, NewWebhook(webhook_id, "acme", "n", "https://example.com", ["click"], sealed), 1000)

    return make


def secrets_of(database, box):
    rows = database.execute("SELECT id, sealed_secret, sealed_previous_secret FROM webhooks ORDER BY id").fetchall()
    return {i: (box.open(secret, i), previous and box.open(previous, i)) for i, secret, previous in rows}


def test_every_secret_is_sealed_anew_and_the_old_key_can_go(database, add, old_box, new_box):
    for n in range(7):
        add(f"wh_{n}")
    rotate_secret(database, "acme", "wh_3", old_box.seal("whsec_second", "wh_3"), timedelta(hours=1))
    before = secrets_of(database, old_box)
    updated = database.execute("SELECT id, updated_at FROM webhooks ORDER BY id").fetchall()
    done = reseal_all(database, new_box, batch=3)
    assert (done.resealed, done.current, done.is_complete) == (7, 0, True)
    assert secrets_of(database, SecretBox([NEW])) == before
    assert before["wh_3"] == ("whsec_second", f"{SECRET}-wh_3")
    assert database.execute("SELECT id, updated_at FROM webhooks ORDER BY id").fetchall() == updated
    with pytest.raises(SealError):
        secrets_of(database, old_box)


def test_it_goes_on_where_it_was_cut_short(database, add, new_box):
    for n in range(5):
        add(f"wh_{n}")
    database.execute("UPDATE webhooks SET sealed_secret = %s WHERE id = 'wh_1'", [new_box.seal(SECRET, "wh_1")])
    sealed = database.execute("SELECT sealed_secret FROM webhooks WHERE id = 'wh_1'").fetchone()
    assert (reseal_all(database, new_box).resealed, reseal_all(database, new_box).resealed) == (4, 0)
    assert database.execute("SELECT sealed_secret FROM webhooks WHERE id = 'wh_1'").fetchone() == sealed


def test_the_keys_of_client_certificates_are_sealed_anew_too(database, add, old_box, new_box):
    add("wh_1")
    sealed = old_box.seal("the key", "wh_1", Purpose.CLIENT_KEY)
    not_after = datetime(2030, 1, 1, tzinfo=UTC)
    assert put(database, "acme", StoredCertificate("wh_1", bytes(32), "the chain", sealed, not_after))
    database.execute("UPDATE webhooks SET sealed_secret = %s", [new_box.seal(SECRET, "wh_1")])
    assert (reseal_all(database, new_box).resealed, reseal_all(database, new_box).current) == (1, 1)
    (key,) = database.execute("SELECT sealed_key FROM client_certificates").fetchone()
    assert SecretBox([NEW]).open(key, "wh_1", Purpose.CLIENT_KEY) == "the key"
    database.execute("UPDATE client_certificates SET sealed_key = %s", [SecretBox([LOST]).seal("the key", "wh_1")])
    assert reseal_all(database, new_box).shut == ["wh_1"]


def test_secret_headers_are_sealed_anew_too(database, add, old_box, new_box):
    add("wh_1")
    sealed = old_box.seal('{"Authorization": "Bearer x"}', "wh_1", Purpose.HEADERS)
    database.execute("UPDATE webhooks SET headers = '[[\"Authorization\", null]]', sealed_headers = %s", [sealed])
    database.execute("UPDATE webhooks SET sealed_secret = %s", [new_box.seal(SECRET, "wh_1")])
    assert (reseal_all(database, new_box).resealed, reseal_all(database, new_box).current) == (1, 1)
    (anew,) = database.execute("SELECT sealed_headers FROM webhooks").fetchone()
    assert SecretBox([NEW]).open(anew, "wh_1", Purpose.HEADERS) == '{"Authorization": "Bearer x"}'
    database.execute("UPDATE webhooks SET sealed_headers = %s", [SecretBox([LOST]).seal("{}", "wh_1", Purpose.HEADERS)])
    assert reseal_all(database, new_box).shut == ["wh_1"]


def test_what_no_key_opens_is_named_and_left_alone(database, add, new_box):
    add("wh_1")
    add("wh_2", SecretBox([LOST]))
    done = reseal_all(database, new_box)
    assert (done.resealed, done.shut, done.is_complete) == (1, ["wh_2"], False)
    assert secrets_of(database, SecretBox([NEW, LOST]))["wh_2"] == (f"{SECRET}-wh_2", None)


def test_what_a_lost_key_had_sealed_and_a_rotation_replaced_is_forgotten_with_the_overlap(database, add, new_box):
    add("wh_1", SecretBox([LOST]))
    rotate_secret(database, "acme", "wh_1", new_box.seal("whsec_second", "wh_1"), timedelta(hours=1))
    assert reseal_all(database, new_box).shut == ["wh_1"]
    database.execute("UPDATE webhooks SET previous_secret_expires_at = now()")
    assert reseal_all(database, new_box).is_complete
    assert secrets_of(database, SecretBox([NEW])) == {"wh_1": ("whsec_second", None)}


def test_a_secret_that_its_owner_rotates_meanwhile_is_not_overwritten(database, database_url, add, new_box, old_box):
    add("wh_1")

    class Interrupted(SecretBox):
        """The owner is quicker, between our read and our write."""

        def seal(self, secret, webhook_id, *purpose):
            with psycopg.connect(database_url, autocommit=True) as other:
                rotate_secret(other, "acme", "wh_1", old_box.seal("whsec_second", "wh_1"), timedelta(hours=1))
            return super().seal(secret, webhook_id, *purpose)

    done = reseal_all(database, Interrupted([NEW, OLD]))
    assert (done.resealed, done.changed, done.is_complete) == (0, 1, False)
    assert secrets_of(database, new_box)["wh_1"][0] == "whsec_second"
    assert reseal_all(database, new_box).is_complete


def test_a_deleted_webhook_is_no_hindrance(database, add, new_box):
    add("wh_1", SecretBox([LOST]))
    delete(database, "acme", "wh_1")
    assert reseal_all(database, new_box).is_complete


def test_live_copies_hear_of_it(database, database_url, add, new_box):
    add("wh_1")
    seen, heard = [], threading.Event()

    def take(webhook):
        seen.append(webhook.sealed_secret)
        if new_box.is_current(webhook.sealed_secret):
            heard.set()

    follower = WebhookFollower(Settings(database_url=database_url), take)
    follower.start()
    try:
        assert not new_box.is_current(seen[-1])
        reseal_all(database, new_box)
        assert heard.wait(5)
    finally:
        follower.stop()


def test_the_command_says_when_the_old_key_can_go(database, database_url, add, monkeypatch):
    add("wh_1")
    add("wh_2", SecretBox([LOST]))
    encoded = {key: base64.b64encode(key).decode() for key in (OLD, NEW, LOST)}
    monkeypatch.setenv("GO2HOOKS_DATABASE_URL", database_url)
    monkeypatch.setenv("GO2HOOKS_SECRET_KEYS", f"{encoded[NEW]},{encoded[OLD]}")
    refused = CliRunner().invoke(main, ["secrets", "rotate"])
    assert refused.exit_code == 1
    assert "1 webhooks sealed anew" in refused.output
    assert "does not name: wh_2" in refused.output
    monkeypatch.setenv("GO2HOOKS_SECRET_KEYS", f"{encoded[NEW]},{encoded[LOST]}")
    done = CliRunner().invoke(main, ["secrets", "rotate"])
    assert (done.exit_code, "Nothing needs the older keys any more." in done.output) == (0, True), done.output
    assert set(secrets_of(database, SecretBox([NEW]))) == {"wh_1", "wh_2"}


def test_a_stacks_own_key_counts_unless_the_environment_names_keys(database, database_url, add, monkeypatch, tmp_path):
    """As for `go2hooks up` itself: to rotate by its own key alone would say that nothing needs the older keys."""
    add("wh_1")
    old, new = (base64.b64encode(key).decode() for key in (OLD, NEW))
    (tmp_path / "endpoints.json").write_text(json.dumps({"kafka": "localhost:1", "postgres": database_url}))
    (tmp_path / "secret-key").write_text(old)
    command = ["secrets", "rotate", "--data-dir", str(tmp_path)]
    monkeypatch.delenv("GO2HOOKS_SECRET_KEYS", raising=False)
    assert "0 webhooks sealed anew, 1 were already." in CliRunner().invoke(main, command).output
    monkeypatch.setenv("GO2HOOKS_SECRET_KEYS", f"{new},{old}")
    assert "1 webhooks sealed anew, 0 were already." in CliRunner().invoke(main, command).output
    assert set(secrets_of(database, SecretBox([NEW]))) == {"wh_1"}
