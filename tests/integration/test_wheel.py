"""What users install: both wheels, each in an environment that holds no source of ours."""

import os
import secrets
import shutil
import subprocess
import sys
import sysconfig
import threading
import venv
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from up_command import UpCommand, call_api
from waiting import eventually

from go2hooks import __version__
from go2hooks.build import VARIABLE, directory_for
from go2hooks.listening.receiver import Received, Receiver

ROOT = Path(__file__).parents[2]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    # What the tests' own environment knows must not help.
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "GO2HOOKS_", "VIRTUAL_ENV"))
    }
    result = subprocess.run(
        list(map(str, command)), cwd=cwd, env=clean | env, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def build(kind: str, directory: Path) -> Path:
    """The wheel, as `make wheel` builds it. Compiled modules are taken from the checkout where it has them."""
    env = {"HATCH_BUILD_HOOKS_ENABLE": "1"} if kind == "compiled" else {}
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", directory, cwd=ROOT, **env)
    (wheel,) = directory.glob("go2hooks-*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment in which the plain wheel was installed, without extras."""
    directory = tmp_path_factory.mktemp("wheel")
    wheel = build("plain", directory)
    venv.create(directory / "venv", with_pip=False)
    python = directory / "venv" / "bin" / "python"
    run(*PIP, "--python", python, "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel, cwd=directory)
    return python.parent


@pytest.fixture(scope="module", params=["compiled", "plain"])
def kind(request: pytest.FixtureRequest) -> str:
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    if request.param == "compiled" and shutil.which(compiler) is None and not directory_for(ROOT).is_dir():
        pytest.skip("no C compiler on this machine")
    return request.param


@pytest.fixture(scope="module")
def complete(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment with the wheel; every other package is the tests' own, which saves a minute."""
    directory = tmp_path_factory.mktemp(kind)
    wheel = build(kind, directory)
    venv.create(directory / "venv", with_pip=False)
    python = directory / "venv" / "bin" / "python"
    run(*PIP, "--python", python, "install", "--quiet", "--no-deps", wheel, cwd=directory)
    (packages,) = (directory / "venv").glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib"))  # the editable install in there is not followed
    return python.parent


@pytest.fixture
def received() -> Iterator[tuple[int, list[Received]]]:
    """A receiver's port, and what has arrived there."""
    requests: list[Received] = []
    receiver = Receiver("127.0.0.1", 0, lambda request: requests.append(request) or 200)
    thread = threading.Thread(target=receiver.serve)
    thread.start()
    yield receiver.port, requests
    receiver.close()
    thread.join()


def test_an_installed_wheel_tells_which_it_is_and_is_it(kind: str, complete: Path, tmp_path: Path):
    assert run(complete / "go2hooks", "--version", cwd=tmp_path) == f"go2hooks, version {__version__}, {kind}\n"
    script = """
from go2hooks.codec import EventCodec
from go2hooks.core.domain.samples import example_payload
import go2hooks.codec
codec = EventCodec()
print(codec.decode(codec.encode(example_payload("click"))).type, go2hooks.codec.__file__)
"""
    event, file = run(complete / "python", "-c", script, cwd=tmp_path).split()
    assert event == "click"
    assert Path(file).is_relative_to(complete.parent)
    assert file.endswith(".py") == (kind == "plain")


def test_an_event_is_delivered_from_an_installed_wheel(
    kind: str,
    complete: Path,
    received: tuple[int, list[Received]],
    kafka_bootstrap: str,
    database_url: str,
    tmp_path: Path,
):
    port, requests = received
    settings = {
        "GO2HOOKS_KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap,
        "GO2HOOKS_KAFKA_PREFIX": f"wheel-{secrets.token_hex(4)}",
        "GO2HOOKS_TOPIC_PARTITIONS": "1",
        "GO2HOOKS_DATABASE_URL": database_url,
        "GO2HOOKS_ALLOW_INSECURE_TARGETS": "true",
    }
    up = UpCommand(tmp_path / "data", program=complete / "go2hooks", **settings | {VARIABLE: kind})
    try:
        endpoints = up.endpoints()
        hook = {"name": "wheel", "url": f"http://127.0.0.1:{port}/hook", "events": ["click"]}
        created = call_api(endpoints, "/webhooks", hook)["data"]
        emit = ("emit", "click", "--account", endpoints["account"], "--data-dir", up.dir)
        run(complete / "go2hooks", *emit, cwd=tmp_path, **settings)
        eventually(lambda: requests)
        for url in (endpoints["metrics"]["api"], *endpoints["metrics"]["router"], *endpoints["metrics"]["dispatcher"]):
            shown = urlopen(url, timeout=10).read().decode()
            assert f'go2hooks_build_info{{build="{kind}",version="{__version__}"}} 1.0' in shown
    finally:
        up.end()
    assert all(requests[0].verify([created["secret"]]).values())
    assert f"go2hooks {__version__}, {kind}." in up.log.read_text()
    for log in (up.dir / "logs").glob("*.log"):
        assert kind in log.read_text().partition("\n")[0], log


def test_the_command_line_starts_without_any_extra(installed: Path, tmp_path: Path):
    assert "dispatcher" in run(installed / "go2hooks", "--help", cwd=tmp_path)
    for command in (
        "up",
        "api",
        "router",
        "replayer",
        "dispatcher",
        "migrate",
        "topics",
        "keys",
        "emit",
        "listen",
        "doctor",
        "config",
    ):
        assert "Usage:" in run(installed / "go2hooks", command, "--help", cwd=tmp_path)


def test_a_missing_extra_is_named(installed: Path, tmp_path: Path):
    result = subprocess.run([installed / "go2hooks", "up"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "pip install 'go2hooks[" in result.stderr


def test_everything_that_is_read_at_run_time_is_in_the_wheel(installed: Path, tmp_path: Path):
    script = """
import importlib.resources as resources
for package, pattern in (("go2hooks.postgres.migrations", "versions/*.sql"), ("go2hooks.devstack", "kafka-jars.txt"), ("schemas", "*.avsc")):
    folder = resources.files(package)
    print(bool(list(folder.glob(pattern))))
"""
    assert run(installed / "python", "-c", script, cwd=tmp_path) == "True\n" * 3
