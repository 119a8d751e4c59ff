"""Two thousand hostile requests to the API as a process: nothing breaks, nothing of another account's is told."""

import importlib.util
import json
import random
import socket
import sys
import threading
import time
from pathlib import Path

import pytest
from usable_topics import make_topics

from go2hooks.postgres.api_keys import create_key
from go2hooks.settings import Settings

HANGING_S = 10.0  #: after so long something is taken to hang
FILE = Path(__file__).parents[2] / "bench" / "hostile_api.py"
SPEC = importlib.util.spec_from_file_location("hostile_api", FILE)
hostile_api = importlib.util.module_from_spec(SPEC)
sys.modules["hostile_api"] = hostile_api
SPEC.loader.exec_module(hostile_api)


@pytest.fixture
def api(run_service, database, kafka_bootstrap, tmp_path):
    """Its URL and the keys of two accounts."""
    make_topics(Settings(kafka_bootstrap_servers=kafka_bootstrap))
    run_service("api", GO2HOOKS_API_PORT="0", GO2HOOKS_API_REQUESTS_PER_S="0", GO2HOOKS_LOG_LEVEL="error")
    port = json.loads((tmp_path / "api-port.json").read_bytes())["port"]
    keys = [create_key(database, account).key for account in ("attacker", "victim")]
    return f"http://127.0.0.1:{port}/api/v1", *keys


def test_nothing_hostile_breaks_it_or_makes_it_tell(api, tmp_path):
    report = hostile_api.run(*api, count=2000, seed=20261124)
    assert report.breaches == []
    assert report.total == 2000
    assert {200, 201, 400, 404, 405, 413, 415, 422} <= set(report.statuses)
    assert "Traceback" not in (tmp_path / "api.log").read_text()


def test_the_judge_finds_what_is_wrong():
    victim = hostile_api.Victim(("wh_1",), "marker")
    report = hostile_api.Report()
    target = hostile_api.Target("http://127.0.0.1:1/api/v1", "key", victim, report)
    attack = next(hostile_api.attacks(random.Random(1), lambda: "wh_2", victim))._replace(method="GET", raw=None)
    for status, content, problem in (
        (500, b'{"success": false}', "500"),
        (200, b'{"success": true, "data": "marker"}', "another account's"),
        (404, b"<html>", "no envelope"),
        (0, b"", "no answer"),
    ):
        target._ordinary = lambda _attack, answer=(status, content): answer
        target.suffer(attack)
        assert problem in report.breaches.pop()
    target._ordinary = lambda _attack: (404, b'{"success": false}')
    target.suffer(attack)
    target._raw = target._ordinary = lambda _attack: (0, b"")
    target.suffer(attack._replace(raw=b"GET"))
    target.suffer(attack._replace(body=b"x" * hostile_api.HUGE))
    assert report.breaches == []


def test_others_are_served_while_slow_clients_hold_their_connections(api):
    """Two hundred connections send a byte now and then, for ever; no other waits for them."""
    url, key, _ = api
    port = int(url.split(":")[2].split("/")[0])
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
    over = threading.Event()

    def trickle():
        while not over.wait(0.2):
            for connection in slow:
                try:
                    connection.send(b"P")
                except OSError:
                    continue  # it was ended, as it should be

    thread = threading.Thread(target=trickle)
    thread.start()
    took = []
    try:
        for _ in range(200):
            began = time.monotonic()
            hostile_api.call(url, key, "GET", "/webhooks")
            took.append(time.monotonic() - began)
    finally:
        over.set()
        thread.join()
        for connection in slow:
            connection.close()
    assert max(took) < HANGING_S
