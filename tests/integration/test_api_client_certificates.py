"""The API of client certificates: upload, show, remove; the key is never shown."""

import datetime as dt
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

import psycopg
import pytest
from certificates import issued, path_of
from waiting import eventually
from werkzeug.serving import make_server

from go2hooks.core.errors import SealError
from go2hooks.postgres.client_certificates import StoredCertificate, put
from go2hooks.postgres.secrets import Purpose
from go2hooks.settings import Settings


@pytest.fixture
def api_settings(api_settings: Settings) -> Settings:
    return api_settings.model_copy(update={"allow_insecure_targets": True})  # a webhook of plain http is part of this


def test_what_is_uploaded_is_shown_without_its_key_until_it_is_removed(acme, authority, database, secret_box):
    webhook, body = acme.create(), issued(authority, "one.test")
    assert acme("GET", path_of(webhook)).json["error"]["code"] == "client_certificate_not_found"
    put = acme("PUT", path_of(webhook), body)
    assert put.status_code == 200, put.text
    assert set(put.json["data"]) == {"subject", "issuer", "serialNumber", "notBefore", "notAfter", "fingerprint"}
    assert len(put.json["data"]["fingerprint"]) == 95
    assert acme("GET", path_of(webhook)).json == put.json
    (sealed,) = database.execute("SELECT sealed_key FROM client_certificates").fetchone()
    with pytest.raises(SealError):
        secret_box.open(sealed, webhook["id"])
    key = secret_box.open(sealed, webhook["id"], Purpose.CLIENT_KEY)
    assert key.startswith("-----BEGIN PRIVATE KEY-----")
    assert key.splitlines()[1] not in put.text
    assert acme("DELETE", path_of(webhook)).json["data"] == {"id": webhook["id"], "deleted": True}
    assert acme("DELETE", path_of(webhook)).status_code == 404
    assert acme("GET", path_of(webhook)).status_code == 404
    assert database.execute("SELECT count(*) FROM client_certificates").fetchone() == (0,)


def test_a_second_upload_replaces_the_first(acme, authority, database):
    webhook = acme.create()
    first, second = (acme("PUT", path_of(webhook), issued(authority, f"{n}.test")).json["data"] for n in ("one", "two"))
    assert first["fingerprint"] != second["fingerprint"]
    assert acme("GET", path_of(webhook)).json["data"] == second
    agree = "SELECT w.client_certificate = c.digest FROM webhooks w JOIN client_certificates c ON c.webhook_id = w.id"
    assert database.execute(agree).fetchall() == [(True,)]


def test_another_accounts_webhook_does_not_exist(acme, rival, authority, database):
    webhook = acme.create()
    body = issued(authority, "one.test")
    acme("PUT", path_of(webhook), body)
    before = acme("GET", path_of(webhook)).json
    for method in ("GET", "PUT", "DELETE"):
        answer = rival(method, path_of(webhook), body if method == "PUT" else None)
        assert answer.status_code == 404
        assert answer.json["error"]["code"] == "webhook_not_found"
    assert acme("GET", path_of(webhook)).json == before


def test_a_refusal_names_the_field_and_changes_nothing(acme, authority):
    webhook, body = acme.create(), issued(authority, "one.test")
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    other = issued(authority, "other.test")
    refused = {
        "certificate": issued(authority, "old.test", not_after=past),
        "privateKey": body | {"privateKey": other["privateKey"]},
    }
    for name, upload in refused.items():
        answer = acme("PUT", path_of(webhook), upload)
        assert answer.status_code == 422
        assert set(answer.json["error"]["details"]) == {name}
    for upload in ({}, body | {"certificate": None}, body | {"x": 1}, body | {"privateKey": "x" * 5000}):
        assert acme("PUT", path_of(webhook), upload).status_code == 422
    assert acme("GET", path_of(webhook)).status_code == 404


def test_a_certificate_and_an_http_url_exclude_each_other(acme, authority):
    plain, webhook = acme.create(url="http://a.example/"), acme.create(url="HTTPS://a.example/")
    body = issued(authority, "one.test")
    refused = acme("PUT", path_of(plain), body)
    assert (refused.status_code, refused.json["error"]["code"]) == (409, "client_certificate_needs_https")
    assert acme("GET", path_of(plain)).status_code == 404
    assert acme("PUT", path_of(webhook), body).status_code == 200
    change = ("PATCH", f"/webhooks/{webhook['id']}", {"url": "http://a.example/"})
    assert acme(*change).json["error"]["code"] == "client_certificate_needs_https"
    assert acme("GET", f"/webhooks/{webhook['id']}").json["data"]["url"] == "HTTPS://a.example/"
    acme("DELETE", path_of(webhook))
    assert acme(*change).status_code == 200


def test_a_deleted_webhook_keeps_no_key(acme, authority, database):
    webhook = acme.create()
    acme("PUT", path_of(webhook), issued(authority, "one.test"))
    assert acme("DELETE", f"/webhooks/{webhook['id']}").status_code == 200
    assert database.execute("SELECT count(*) FROM client_certificates").fetchone() == (0,)
    assert acme("PUT", path_of(webhook), issued(authority, "one.test")).status_code == 404


def test_a_webhook_that_is_deleted_during_its_first_upload_keeps_no_key(acme, database, database_url):
    """The deletion began before there was a key, and waits for the upload."""
    webhook = acme.create()
    certificate = StoredCertificate(webhook["id"], bytes(32), "chain", b"key", dt.datetime(2030, 1, 1, tzinfo=dt.UTC))
    deletion = threading.Thread(target=acme, args=("DELETE", f"/webhooks/{webhook['id']}"))
    with psycopg.connect(database_url) as uploading, uploading.transaction():
        assert put(uploading, "acme", certificate)
        deletion.start()
        waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        eventually(lambda: database.execute(waiting).fetchone())
    deletion.join()
    assert database.execute("SELECT deleted_at IS NOT NULL, client_certificate FROM webhooks").fetchone() == (
        True,
        None,
    )
    assert database.execute("SELECT count(*) FROM client_certificates").fetchone() == (0,)


def test_the_recipe_for_receivers_works(acme, app, database, tmp_path):
    if shutil.which("jq") is None or shutil.which("curl") is None:
        pytest.skip("no jq or no curl on this machine")
    page = (Path(__file__).parents[2] / "docs/receivers.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- client-certificate.sh -->\n```sh\n(.*?)```", page, re.DOTALL)
    assert found is not None
    webhook, server = acme.create(), make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    env = {
        "PATH": os.environ["PATH"],
        "API": f"http://127.0.0.1:{server.port}/api/v1",
        "KEY": acme.key,
        "WEBHOOK": webhook["id"],
    }
    try:
        command = ["sh", "-ec", found[1]]
        mistaken = env | {"KEY": "go2_mistyped"}
        refused = subprocess.run(command, cwd=tmp_path, env=mistaken, capture_output=True, timeout=120, check=False)
        assert refused.returncode != 0
        assert b"invalid_api_key" in refused.stdout
        assert (tmp_path / "client.key").exists()
        subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, timeout=120, check=True)
    finally:
        server.shutdown()
    shown = acme("GET", path_of(webhook)).json["data"]
    assert shown["subject"] == shown["issuer"] == "CN=go2-webhooks"
    assert not (tmp_path / "client.key").exists()
    verify = ["openssl", "verify", "-purpose", "sslclient", "-CAfile", "client.crt", "client.crt"]
    subprocess.run(verify, cwd=tmp_path, capture_output=True, timeout=120, check=True)
