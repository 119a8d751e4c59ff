"""Schemathesis, all its checks and phases, on the API as a process: what the document says is so, for two accounts."""

import json
import re
import sys
import threading
from contextlib import contextmanager
from importlib import util
from pathlib import Path

import psycopg
import pytest
from usable_topics import make_topics

from go2hooks.postgres.api_keys import create_key
from go2hooks.settings import Settings

FILE = Path(__file__).parents[2] / "bench" / "schema_attack.py"
SPEC = util.spec_from_file_location("schema_attack", FILE)
schema_attack = util.module_from_spec(SPEC)
sys.modules["schema_attack"] = schema_attack
SPEC.loader.exec_module(schema_attack)

SEED = 20261124


@contextmanager
def deliveries_recorded(database_url):
    """In a dispatcher's place: whatever is pending is soon recorded as delivered, and nothing is sent anywhere."""
    over = threading.Event()

    def answer():
        with psycopg.connect(database_url, autocommit=True) as conn:
            while not over.wait(0.02):
                conn.execute(
                    "UPDATE attempts SET state = 'delivered', attempt = 1, status_code = 200, duration_ms = 1.5 WHERE state = 'pending'"
                )

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.fixture
def url(run_service, kafka_bootstrap, tmp_path):
    make_topics(Settings(kafka_bootstrap_servers=kafka_bootstrap))
    limits = {"GO2HOOKS_API_REQUESTS_PER_S": "0", "GO2HOOKS_API_FAILED_LOGINS_PER_MINUTE": "0"}
    run_service("api", GO2HOOKS_API_PORT="0", GO2HOOKS_LOG_LEVEL="error", **limits)
    port = json.loads((tmp_path / "api-port.json").read_bytes())["port"]
    return f"http://127.0.0.1:{port}/api/v1"


def test_every_answer_is_as_the_document_says_and_no_account_sees_anothers(url, database, database_url, tmp_path):
    keys = [create_key(database, account).key for account in ("one", "other")]
    with deliveries_recorded(database_url):
        outcome = schema_attack.run(url, *keys, seed=SEED, max_examples=3)
    assert outcome.is_clean, outcome.output
    assert re.search(r"Operations: +(\d+) selected / \1 total", outcome.output)
    assert all(f"✅  {phase}" in outcome.output for phase in ("Coverage", "Fuzzing", "Stateful"))
    assert not any(key in outcome.output for key in keys)
    assert (tmp_path / "api.log").read_text() == ""  # not one error
