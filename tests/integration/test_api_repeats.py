"""`Idempotency-Key`: whatever is lost on the way, what was asked for once is done once."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from calling import HOOK, Caller
from psycopg import AsyncConnection

from go2hooks.postgres import idempotency
from go2hooks.postgres.api_keys import create_key
from go2hooks.postgres.audit import forget_old
from go2hooks.postgres.idempotency import KeptAnswer
from go2hooks.postgres.key_rotation import reseal_all
from go2hooks.postgres.secrets import SecretBox
from services.api import create_app

KEY = {"Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}


def hooks(caller):
    return caller("GET", "/webhooks").json["meta"]["total"]


def kept(database):
    return database.execute("SELECT count(*) FROM idempotent_answers").fetchone()[0]


def test_a_repeated_request_gets_the_first_answer_and_is_not_done_again(acme):
    first, second = (acme("POST", "/webhooks", HOOK, headers=KEY) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.data == first.data
    assert second.json["data"]["secret"].startswith("whsec_")
    for header in ("Location", "ETag", "Content-Type"):
        assert second.headers[header] == first.headers[header]
    assert (first.headers.get("Idempotent-Replayed"), second.headers["Idempotent-Replayed"]) == (None, "true")
    assert hooks(acme) == 1


def test_a_secret_whose_answer_was_lost_is_shown_again_and_not_rotated_again(acme, database, secret_box):
    hook = acme.create()["id"]
    answers = [acme("POST", f"/webhooks/{hook}/rotate-secret", headers=KEY).json["data"] for _ in range(3)]
    assert len({answer["secret"] for answer in answers}) == 1
    [sealed] = database.execute("SELECT sealed_secret FROM webhooks").fetchone()
    assert secret_box.open(sealed, hook) == answers[0]["secret"]


def test_every_post_can_be_repeated(acme, outbox):
    hook = acme.create()["id"]
    asked = [("/keys", {"name": "n", "scopes": ["read"]}), (f"/webhooks/{hook}/test", {}), ("/webhooks", HOOK)]
    for n, (path, body) in enumerate(asked):
        first, second = (acme("POST", path, body, headers={"Idempotency-Key": f"{n}"}) for _ in range(2))
        assert first.data == second.data
        assert second.headers["Idempotent-Replayed"] == "true"
    assert len(outbox.deliveries) == 1


def test_without_the_key_every_request_is_done(acme):
    assert [acme("POST", "/webhooks", HOOK).status_code for _ in range(2)] == [201, 201]
    assert hooks(acme) == 2


def test_the_key_is_for_posts_alone(acme, database):
    hook = acme.create()["id"]
    for name in ("a", "b"):
        assert acme("PATCH", f"/webhooks/{hook}", {"name": name}, headers=KEY).json["data"]["name"] == name
    assert kept(database) == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [("/webhooks", HOOK | {"name": "x"}), ("/keys", HOOK), ("/webhooks?x=1", HOOK)],
    ids=["body", "path", "query"],
)
def test_a_key_that_comes_with_another_request_is_refused(acme, path, body):
    acme("POST", "/webhooks", HOOK, headers=KEY)
    if path == "/keys":
        body = {"name": "n", "scopes": ["read"]}
    answer = acme("POST", path, body, headers=KEY)
    assert (answer.status_code, answer.json["error"]["code"]) == (422, "idempotency_key_reused")
    assert list(answer.json["error"]["details"]) == ["Idempotency-Key"]
    assert hooks(acme) == 1


def test_keys_of_the_api_share_what_their_account_was_answered(acme, app, database):
    other = Caller(app.test_client(), "acme", create_key(database, "acme").key)
    assert acme("POST", "/webhooks", HOOK, headers=KEY).data == other("POST", "/webhooks", HOOK, headers=KEY).data


def test_a_key_may_be_written_as_the_draft_has_it(acme):
    written = ('"a\\"b"', 'a"b')
    first, second = (acme("POST", "/webhooks", HOOK, headers={"Idempotency-Key": each}) for each in written)
    assert first.data == second.data


@pytest.mark.parametrize("key", ["", "x" * 256, "ü", "a\tb", "\x7f"])
def test_what_cannot_be_a_key_is_refused(acme, key):
    answer = acme("POST", "/webhooks", HOOK, headers={"Idempotency-Key": key})
    assert (answer.status_code, list(answer.json["error"]["details"])) == (422, ["Idempotency-Key"])
    assert hooks(acme) == 0


def test_a_request_is_refused_while_the_same_is_under_way(acme, app, outbox):
    hook = acme.create()["id"]
    writing, over = threading.Event(), threading.Event()

    def on_write(_):
        writing.set()
        assert over.wait(20)

    outbox.on_write = on_write
    other = Caller(app.test_client(), "acme", acme.key)
    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(acme, "POST", f"/webhooks/{hook}/test", headers=KEY)
        assert writing.wait(20)
        second = other("POST", f"/webhooks/{hook}/test", headers=KEY)
        over.set()
        assert first.result().status_code == 202
    assert (second.status_code, second.json["error"]["code"]) == (409, "idempotency_key_in_use")
    assert other("POST", f"/webhooks/{hook}/test", headers=KEY).data == first.result().data
    assert len(outbox.deliveries) == 1


def test_of_requests_with_the_same_key_at_once_one_is_done(acme, app):
    callers = [Caller(app.test_client(), "acme", acme.key) for _ in range(4)]
    for n in range(5):
        key = {"Idempotency-Key": f"{n}"}
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda caller, key=key: caller("POST", "/webhooks", HOOK, headers=key), callers))
        assert hooks(acme) == n + 1
        assert {answer.status_code for answer in answers} <= {201, 409}
        assert len({answer.data for answer in answers if answer.status_code == 201}) == 1


def test_what_is_done_is_undone_when_its_answer_cannot_be_kept(acme, database):
    """As when the API or Postgres dies in between: the request was not answered, and did not half happen."""
    database.execute(
        """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '53100'; END $$;
           CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON idempotent_answers DEFERRABLE INITIALLY DEFERRED
           FOR EACH ROW EXECUTE FUNCTION refuse()"""
    )
    assert acme("POST", "/webhooks", HOOK, headers=KEY).status_code == 503
    assert hooks(acme) == 0
    database.execute("DROP TRIGGER refuse ON idempotent_answers")
    assert acme("POST", "/webhooks", HOOK, headers=KEY).status_code == 201
    assert hooks(acme) == 1


def test_a_refusal_that_is_final_is_answered_again_and_one_that_can_be_waited_out_is_asked_again(
    api_settings, pool, secret_box, outbox, database
):
    app = create_app(api_settings.model_copy(update={"webhooks_per_account": 1}), pool, secret_box, outbox, outbox)
    caller = Caller(app.test_client(), "acme", create_key(database, "acme").key)
    hook = caller.create()["id"]
    assert caller("POST", "/webhooks", HOOK, headers=KEY).status_code == 409
    caller("DELETE", f"/webhooks/{hook}")
    assert caller("POST", "/webhooks", HOOK, headers=KEY).status_code == 201
    gone = {"Idempotency-Key": "gone"}
    answers = [caller("POST", f"/webhooks/{hook}/rotate-secret", headers=gone) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[1].headers["Idempotent-Replayed"] == "true"


def test_a_failure_is_not_kept(acme, outbox, database):
    hook = acme.create()["id"]
    outbox.is_away = True
    assert acme("POST", f"/webhooks/{hook}/test", headers=KEY).status_code == 503
    outbox.is_away = False
    assert acme("POST", f"/webhooks/{hook}/test", headers=KEY).status_code == 202
    assert kept(database) == 1


def test_a_body_that_was_not_valid_may_be_corrected_under_the_same_key(acme):
    assert acme("POST", "/webhooks", HOOK | {"name": ""}, headers=KEY).status_code == 422
    assert acme("POST", "/webhooks", HOOK, headers=KEY).status_code == 201


def test_an_answer_is_stored_sealed(acme, database, secret_box):
    created = acme("POST", "/webhooks", HOOK, headers=KEY).json["data"]
    made = acme("POST", "/keys", {"name": "n", "scopes": ["read"]}, headers={"Idempotency-Key": "k"}).json["data"]
    rows = database.execute("SELECT * FROM idempotent_answers").fetchall()
    everything = b"".join(
        bytes(each) if isinstance(each, bytes) else str(each).encode() for row in rows for each in row
    )
    assert created["secret"].encode() not in everything
    assert made["key"].encode() not in everything


def test_an_answer_that_was_moved_to_another_key_does_not_open(acme, database):
    acme("POST", "/webhooks", HOOK, headers=KEY)
    database.execute("UPDATE idempotent_answers SET key = 'other'")
    answer = acme("POST", "/webhooks", HOOK, headers={"Idempotency-Key": "other"})
    assert (answer.status_code, answer.json["error"]["code"]) == (409, "idempotent_answer_lost")


def test_answers_are_sealed_anew_with_the_secrets(acme, database, api_settings, pool, outbox):
    first = acme("POST", "/webhooks", HOOK, headers=KEY)
    reseal_all(database, SecretBox([b"n" * 32, *api_settings.encryption_keys()]))
    app = create_app(api_settings, pool, SecretBox([b"n" * 32]), outbox, outbox)
    assert Caller(app.test_client(), "acme", acme.key)("POST", "/webhooks", HOOK, headers=KEY).data == first.data


async def test_an_answer_is_kept_for_a_day(acme, database, database_url):
    def age(hours):
        database.execute("UPDATE idempotent_answers SET answered_at = now() - make_interval(hours => %s)", [hours])

    async def forget():
        async with await AsyncConnection.connect(database_url, autocommit=True) as connection:
            await forget_old(connection, 365)

    first = acme("POST", "/webhooks", HOOK, headers=KEY).data
    age(23)
    await forget()
    assert acme("POST", "/webhooks", HOOK, headers=KEY).data == first
    age(25)
    second = acme("POST", "/webhooks", HOOK, headers=KEY).data  # whether it was cleared away by then or not
    assert second != first
    assert acme("POST", "/webhooks", HOOK, headers=KEY).data == second
    age(25)
    await forget()
    assert kept(database) == 0


def test_a_crash_gives_the_key_free(database_url, database):
    """The lock is the transaction's: nothing has to time out."""
    with psycopg.connect(database_url) as dying:
        assert idempotency.try_lock(dying, "acme", "k")
        idempotency.keep(dying, "acme", "k", KeptAnswer(bytes(32), b""))
        with database.transaction():
            assert not idempotency.try_lock(database, "acme", "k")
            assert idempotency.try_lock(database, "acme", "other")
        dying.rollback()
    with database.transaction():
        assert idempotency.try_lock(database, "acme", "k")
        assert idempotency.find(database, "acme", "k") is None


def test_the_document_tells_of_the_header(acme):
    paths = json.loads(acme("GET", "/openapi.json").data)["paths"]
    posts = [methods["post"] for methods in paths.values() if "post" in methods]
    assert posts
    for post in posts:
        assert "Idempotency-Key" in [parameter["name"] for parameter in post["parameters"]]
        assert {"409", "422"} <= set(post["responses"])
