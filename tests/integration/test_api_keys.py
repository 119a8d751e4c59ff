"""Accounts and their API keys in Postgres."""

import hmac
from hashlib import sha256

import psycopg
import pytest

from go2hooks.postgres import api_keys
from go2hooks.postgres.api_keys import create_key, list_keys, look_up, revoke_key


@pytest.fixture
def connection(database_url):
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def test_a_new_key_opens_its_account_and_is_stored_only_as_a_hash(connection):
    created = create_key(connection, "acme", "laptop")
    assert look_up(connection, created.key).account_id == "acme"
    assert created.key not in str(connection.execute("SELECT * FROM api_keys").fetchall())


def test_an_account_may_have_several_keys_and_each_is_different(connection):
    first, second = create_key(connection, "acme"), create_key(connection, "acme")
    assert first.key != second.key
    assert [key.id for key in list_keys(connection, "acme")] == [first.id, second.id]


def test_a_revoked_key_opens_nothing_and_stays_listed(connection):
    created = create_key(connection, "acme")
    other = create_key(connection, "acme")
    assert revoke_key(connection, created.id)
    assert not revoke_key(connection, created.id)
    assert look_up(connection, created.key) is None
    assert look_up(connection, other.key).account_id == "acme"
    assert list_keys(connection)[0].revoked_at is not None


@pytest.mark.parametrize("key", ["", "go2_unknown", "' OR 1=1 --", "\x00", "\ud800", "ü" * 10_000])
def test_an_unknown_key_opens_nothing(connection, key):
    create_key(connection, "acme")
    assert look_up(connection, key) is None


@pytest.mark.parametrize("account", ["", "x" * 129, "a\nb", "a\x00b", "\ud800"])
def test_an_account_id_that_no_event_could_carry_is_refused(connection, account):
    with pytest.raises(ValueError, match="account id"):
        create_key(connection, account)
    assert list_keys(connection) == []


class Watched(psycopg.Connection):
    """Keeps what it is asked with."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.asked = []

    def execute(self, query, params=None, **options):
        self.asked.append(params[-1:])
        return super().execute(query, params, **options)


def test_a_key_is_looked_up_by_its_hash_and_compared_in_constant_time(connection, database_url, monkeypatch):
    """So no time depends on how much of a guess is right: who cannot choose the hash learns nothing from it."""
    created = create_key(connection, "acme")
    compared = []

    def watched(one, other):
        compared.append((bytes(one), bytes(other)))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(api_keys, "hmac", type("Watched", (), {"compare_digest": staticmethod(watched)}))
    nearly = created.key[:-1] + ("a" if created.key[-1] != "a" else "b")
    right, wrong = (sha256(key.encode()).digest() for key in (created.key, nearly))
    with Watched.connect(database_url) as conn:
        assert look_up(conn, created.key).account_id == "acme"
        assert look_up(conn, nearly) is None
        assert conn.asked == [[right], [wrong]]
    assert compared == [(right, right), (bytes(32), wrong)]
