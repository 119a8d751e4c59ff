"""`go2hooks up`: the whole stack as its users start, stop, kill and start it again."""

import os
import re
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener, urlopen

import psutil
import psycopg
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from up_command import GO2HOOKS, UpCommand, call_api, children, wait_gone
from usable_topics import watermarks
from waiting import eventually


def webhooks_of(endpoints: dict[str, Any]) -> dict[str, Any]:
    return call_api(endpoints, "/webhooks")


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Not pytest's own directory: an unprivileged Postgres has to get there."""
    with tempfile.TemporaryDirectory(prefix="go2hooks-stack-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def stack(place: Path) -> Iterator[UpCommand]:
    running = UpCommand(place / "first", "--dispatchers", "2")
    yield running
    running.end()


def test_it_announces_everything_that_a_client_needs(stack: UpCommand):
    endpoints = stack.endpoints()
    assert set(endpoints) == {"api", "apiKey", "account", "kafka", "postgres", "dashboard", "metrics", "pids"}
    assert len(endpoints["pids"]["dispatcher"]) == len(endpoints["metrics"]["dispatcher"]) == 2
    assert len(children(endpoints)) == 7
    assert webhooks_of(endpoints)["data"] == []
    for urls in endpoints["metrics"].values():
        for url in [urls] if isinstance(urls, str) else urls:
            assert b"# HELP" in urlopen(url, timeout=10).read()


def test_it_prints_a_link_that_signs_in_to_the_dashboard_once(stack: UpCommand):
    endpoints = stack.endpoints()
    link = eventually(lambda: re.search(r"http://\S+/sign-in/link\?token=(\S+)", stack.log.read_text()))
    browser = build_opener(HTTPCookieProcessor())
    page = browser.open(link[0], timeout=10).read().decode()
    [csrf] = re.findall(r'name="csrf_token" value="([^"]*)"', page)
    assert f'name="token" value="{link[1]}"' in page
    form = urlencode({"csrf_token": csrf, "token": link[1]}).encode()
    with browser.open(link[0].partition("?")[0], form, timeout=10) as answer:
        assert answer.url == endpoints["dashboard"]
        assert "<span>local</span>" in answer.read().decode()
    assert link[1] not in (stack.dir / "endpoints.json").read_text() + (stack.dir / "logs" / "api.log").read_text()


@pytest.mark.parametrize("name", ["endpoints.json", "secret-key", "api-key.json", "postgres/password"])
def test_what_is_secret_is_for_its_owner_alone(stack: UpCommand, name: str):
    stack.endpoints()
    assert stat.S_IMODE((stack.dir / name).stat().st_mode) == 0o600


def test_postgres_takes_no_connection_without_the_password(stack: UpCommand):
    url = stack.endpoints()["postgres"]
    password = url.split(":")[2].partition("@")[0]
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(url.replace(password, "wrong"), connect_timeout=5)


@pytest.mark.parametrize("name", ["router", "replayer", "dispatcher", "api", "postgres", "kafka"])
def test_a_child_that_is_killed_is_started_again(stack: UpCommand, name: str):
    def pid_of(endpoints: dict[str, Any]) -> int:
        found = endpoints["pids"][name]
        return found[0] if isinstance(found, list) else found

    before = stack.endpoints()
    os.kill(pid_of(before), signal.SIGKILL)
    after = stack.endpoints(lambda endpoints: pid_of(endpoints) != pid_of(before))
    assert {key: after[key] for key in ("api", "kafka", "postgres")} == {
        key: before[key] for key in ("api", "kafka", "postgres")
    }
    assert wait_gone([psutil.Process(pid_of(before))] if psutil.pid_exists(pid_of(before)) else []) == []
    assert webhooks_of(after)["success"]


def test_a_second_stack_in_the_same_directory_is_refused(stack: UpCommand):
    stack.endpoints()
    second = subprocess.run([GO2HOOKS, "up", "--data-dir", stack.dir], capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert "runs in" in second.stderr
    assert str(stack.process.pid) in second.stderr


def test_a_port_that_is_taken_is_named_with_the_remedy(stack: UpCommand, place: Path):
    port = stack.endpoints()["api"].split(":")[2].partition("/")[0]
    refused = UpCommand(place / "third", "--api-port", port)
    assert refused.process.wait(30) == 1
    assert f"Port {port} is taken. Choose another with --api-port" in refused.log.read_text()


def test_it_uses_the_servers_that_it_is_given(place: Path, kafka_bootstrap: str, database_url: str):
    stack = UpCommand(
        place / "given", GO2HOOKS_KAFKA_BOOTSTRAP_SERVERS=kafka_bootstrap, GO2HOOKS_DATABASE_URL=database_url
    )
    endpoints = stack.endpoints()
    assert (endpoints["kafka"], endpoints["postgres"]) == (kafka_bootstrap, database_url)
    assert (endpoints["pids"]["kafka"], endpoints["pids"]["postgres"]) == (None, None)
    assert stack.end() == 0


def test_of_two_stacks_side_by_side_one_that_was_killed_leaves_no_orphan_and_its_data(stack: UpCommand, place: Path):
    first, killed = stack.endpoints(), UpCommand(place / "second")
    before = killed.endpoints()
    assert before["kafka"] != first["kafka"]
    assert webhooks_of(first)["success"]
    assert webhooks_of(before)["success"]
    producer = Producer({"bootstrap.servers": before["kafka"]})
    producer.produce("go2.events.dead", b"kept", partition=0)
    assert producer.flush(10) == 0
    cluster = AdminClient({"bootstrap.servers": before["kafka"]}).list_topics(timeout=10).cluster_id
    running = children(before)

    killed.end(signal.SIGKILL)
    assert wait_gone(running) == []

    again = UpCommand(killed.dir)
    after = again.endpoints(lambda endpoints: endpoints["pids"] != before["pids"])
    assert after["apiKey"] == before["apiKey"]
    assert webhooks_of(after)["success"]
    assert AdminClient({"bootstrap.servers": after["kafka"]}).list_topics(timeout=10).cluster_id == cluster
    consumer = Consumer({"bootstrap.servers": after["kafka"], "group.id": "kept"})
    assert watermarks(consumer, TopicPartition("go2.events.dead", 0)) == (0, 1)
    consumer.close()
    assert again.end(signal.SIGINT) == 0
    assert wait_gone(children(first), timeout_s=0) == children(first)


def test_sigterm_stops_every_child_and_takes_the_addresses_away(stack: UpCommand):
    running = children(stack.endpoints())
    assert stack.end(signal.SIGTERM) == 0
    assert wait_gone(running, timeout_s=0.5) == []
    assert not (stack.dir / "endpoints.json").exists()
