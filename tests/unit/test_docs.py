"""The documentation tells the truth: its code runs, its settings exist, its links lead somewhere."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from snippets import snippet

from go2hooks.core.domain.event import EventType
from go2hooks.core.domain.samples import example_payload
from go2hooks.core.security.signing import body_signature, generate_secret, standard_signature
from go2hooks.kafka.topics import TopicNames, all_topics
from go2hooks.settings import Settings
from go2hooks.settings.environment import file_variable, is_secret, variable
from go2hooks.telemetry import metrics

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
MODULES = [
    f"/{path.relative_to(ROOT)}"
    for folder in ("bench", "examples", "go2hooks", "schemas", "services", "tests", "tools")
    for path in (ROOT / folder).rglob("*.py")
]
SECRET = generate_secret(bytes(range(32)))
OTHER = generate_secret(bytes(32))
BODY = '{"event":"click","data":{"city":"München"}}'.encode()


def headers(secrets: list[str], at_s: int) -> dict[str, str]:
    return {
        "x-webhook-signature": body_signature(secrets[0], BODY),
        "webhook-id": "dlv_1",
        "webhook-timestamp": str(at_s),
        "webhook-signature": standard_signature(secrets, "dlv_1", at_s, BODY),
    }


@pytest.fixture
def now_s() -> int:
    import time

    return int(time.time())


def test_python_receivers_verify_us(now_s):
    code: dict = {}
    exec(compile(snippet("verify.py"), "verify.py", "exec"), code)
    body_ok, standard_ok = code["body_ok"], code["standard_ok"]
    assert body_ok(SECRET, headers([SECRET], now_s), BODY)
    assert standard_ok(SECRET, headers([SECRET], now_s), BODY)
    assert standard_ok(SECRET, headers([OTHER, SECRET], now_s), BODY)
    for refused in (body_ok, standard_ok):
        assert not refused(SECRET, headers([SECRET], now_s), BODY + b" ")
        assert not refused(SECRET, headers([OTHER], now_s), BODY)
        assert not refused(SECRET, {}, BODY)
    assert not standard_ok(SECRET, headers([SECRET], now_s - 301), BODY)


@pytest.mark.parametrize("value", ["9" * 400, "9" * 5000, "٣", "-1", "", "\udcff", "ü", "v1,\udce9 v1,"])
def test_python_receivers_refuse_any_header_without_raising(now_s, value):
    code: dict = {}
    exec(compile(snippet("verify.py"), "verify.py", "exec"), code)
    for name in headers([SECRET], now_s):
        asked = code["body_ok" if name.startswith("x-") else "standard_ok"]
        assert asked(SECRET, headers([SECRET], now_s) | {name: value}, BODY) is False


def test_node_receivers_verify_us(tmp_path, now_s):
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on this machine")
    (tmp_path / "verify.mjs").write_text(snippet("verify.mjs"), encoding="utf-8")
    (tmp_path / "main.mjs").write_text(
        'import { bodyOk, standardOk } from "./verify.mjs";\n'
        "const [secret, cases, body] = JSON.parse(process.argv[2]);\n"
        "const asked = (headers) => [bodyOk, standardOk].map((ok) => ok(secret, headers, Buffer.from(body)));\n"
        "console.log(JSON.stringify(cases.map(asked)));\n"
    )
    cases = [headers([SECRET], now_s), headers([OTHER, SECRET], now_s), headers([SECRET], now_s - 301), {}]
    question = json.dumps([SECRET, cases, BODY.decode()])
    answer = subprocess.run(
        [node, "main.mjs", question], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
    )
    assert json.loads(answer.stdout) == [[True, True], [False, True], [True, False], [False, False]]


def test_type_checkers_of_producers_see_the_types_of_the_package(tmp_path):
    page = (ROOT / "docs/producers.md").read_text(encoding="utf-8")
    found = re.search(r"## From Python\n\n```python\n(.*?)```", page, re.DOTALL)
    assert found is not None
    (tmp_path / "produce.py").write_text(found[1], encoding="utf-8")
    installed = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "produce.py"]
    checked = subprocess.run(
        command, cwd=tmp_path, env=installed, capture_output=True, text=True, timeout=300, check=False
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_that_is_named_exists(page):
    named = set(re.findall(r"GO2HOOKS_[A-Z0-9_]*[A-Z0-9](?![A-Z0-9_]*\*)\b", page.read_text(encoding="utf-8")))
    secret = {file_variable(name) for name, field in Settings.model_fields.items() if is_secret(field)}
    assert named <= {variable(name) for name in Settings.model_fields} | secret


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_repository_leads_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_of_the_repository_that_is_named_exists(page):
    folders = "bench|deploy|docs|examples|go2hooks|schemas|services|tests|tools"
    for path in re.findall(rf"`((?:{folders})/[\w/.-]+)`", page.read_text(encoding="utf-8")):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_module_that_is_named_exists(page):
    for name in re.findall(r"`([\w/.-]+\.py)`", page.read_text(encoding="utf-8")):
        assert any(module.endswith(f"/{name}") for module in MODULES), name


def test_every_metric_that_is_named_exists():
    page = (ROOT / "docs/operators.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\bgo2hooks_[a-z_]+", page))
    registries = (metrics.router_registry(), metrics.replayer_registry(), metrics.dispatcher_registry())
    exposed = "".join(generate_latest(registry).decode() for registry in registries)
    known = set(re.findall(r"^# TYPE (\w+) histogram", exposed, re.MULTILINE))
    known = {f"{name}_bucket" for name in known} | set(re.findall(r"^# TYPE (\w+)", exposed, re.MULTILINE))
    assert named
    assert named <= known


def section(page: str, title: str) -> str:
    """What stands under a heading of the second level."""
    text = (ROOT / page).read_text(encoding="utf-8")
    _, found, rest = text.partition(f"\n## {title}\n")
    assert found
    return rest.partition("\n## ")[0]


def test_receivers_read_of_every_event_type_and_its_fields_in_their_order():
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.*) \|$", section("docs/receivers.md", "The events"), re.MULTILINE))
    named = {kind: row.replace("and then the fields of click", rows["click"]) for kind, row in rows.items()}
    fields = {kind: re.sub(r" \([^)]*\)", "", row).split(", ") for kind, row in named.items()}
    assert fields == {kind: list(example_payload(kind).data) for kind in EventType}


def test_producers_read_of_every_event_type_and_its_topic():
    rows = re.findall(r"^\| `(go2\.[\w.]+)` \| (.*?) \|", section("docs/producers.md", "Topics"), re.MULTILINE)
    topics = {kind: topic for topic, kinds in rows for kind in re.findall(r"`([\w.]+)`", kinds)}
    assert topics == TopicNames("go2").of_event
    assert topics.keys() == set(EventType)


def test_operators_read_of_every_topic():
    named: list[str] = []
    for row in re.findall(r"^\| (`go2\..*?) \|", section("docs/operators.md", "Topics"), re.MULTILINE):
        for name in re.findall(r"`([\w.]+)`", row):  # `.link` after `go2.events.click` is go2.events.link
            named.append(name if name.startswith("go2.") else named[-1].rpartition(".")[0] + name)
    retry_delays = Settings.model_fields["retry_delays"].default
    topics = all_topics(TopicNames("go2"), retry_delays, partitions=1, retention_days=1)
    assert sorted(named) == sorted(topic.name for topic in topics)
