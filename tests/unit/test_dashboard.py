"""The dashboards and rules in `deploy/`: every query names series that a service really has, every panel can be read."""

import importlib.util
import itertools
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from flask import Flask
from prometheus_client.registry import CollectorRegistry

from go2hooks.telemetry.metrics import dispatcher_registry, replayer_registry, router_registry
from services.api.observe import observe

ROOT = Path(__file__).parents[2]


def load_check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_dashboard", ROOT / "deploy" / "check_dashboard.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CHECK = load_check()
BOARDS = {path.stem: json.loads(path.read_text()) for path in CHECK.DASHBOARDS.glob("*.json")}
PANELS = [pytest.param(panel, id=panel["title"]) for board in BOARDS.values() for panel in CHECK.panels(board)]
#: What Prometheus itself adds.
TARGET_LABELS = {"job", "instance", "process"}
UNITS = {"ops", "reqps", "s", "bytes", "percentunit", "short"}


def series(registry: CollectorRegistry) -> set[str]:
    """The names of all series of a registry, those of metrics without a value yet too."""
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    return {family.name + suffix for family in registry.collect() for suffix in suffixes.get(family.type, ("",))}


@pytest.fixture(scope="module")
def known() -> set[str]:
    """Every series that our services, Prometheus and our rules make."""
    services = series(router_registry()) | series(replayer_registry()) | series(dispatcher_registry())
    services |= series(observe(Flask("api")))
    return services | set(CHECK.rules()) | {"up"}


@pytest.mark.parametrize("query", CHECK.all_queries(), ids=lambda query: query.where)
def test_every_query_reads_series_that_are_there(query: Any, known: set[str]):
    names = CHECK.metric_names(query.expr)
    assert names
    assert names <= known


@pytest.mark.parametrize("query", CHECK.dashboard_queries(), ids=lambda query: query.where)
def test_a_legend_names_only_labels_that_the_query_keeps(query: Any):
    wanted = set(re.findall(r"{{(\w+)}}", query.legend))
    kept = set(re.split(r"[\s,]+", " ".join(re.findall(r"\bby\s*\(([^)]*)\)", query.expr)))) | set(
        re.findall(r"^(\w+):", query.expr)
    )
    aggregated = re.search(r"\b(sum|max|avg|histogram_quantile)\b", query.expr)
    assert query.legend
    assert wanted <= (kept if aggregated else kept | TARGET_LABELS)


def test_names_are_found_in_an_expression():
    expr = 'sum by (le) (rate(a_total{b="c and d"}[5m] offset 1h)) / on (job) (rec:orded:rate5m > 0) or up unless e'
    assert CHECK.metric_names(expr) == {"a_total", "rec:orded:rate5m", "up", "e"}


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_a_dashboard_can_be_provisioned(board: dict[str, Any]):
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", board["uid"])
    assert board["schemaVersion"] >= 39
    assert board["title"]
    assert "id" not in board, "an id is the database's that it was exported from"
    assert "__inputs" not in board
    (variable,) = board["templating"]["list"]
    assert (variable["name"], variable["type"], variable["query"]) == ("datasource", "datasource", "prometheus")
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_panels_lie_within_the_grid_and_do_not_overlap(board: dict[str, Any]):
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = set(itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])))
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_what_it_shows_in_what_unit(panel: dict[str, Any]):
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert panel["type"] in {"stat", "timeseries"}
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert steps[0]["value"] is None
    assert [step["value"] for step in steps[1:]] == sorted(step["value"] for step in steps[1:])
    assert panel["datasource"] == source
    assert [target["datasource"] for target in panel["targets"]] == [source] * len(panel["targets"])
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0


def test_every_metric_of_ours_is_on_a_dashboard_or_known_not_to_be(known: set[str]):
    """A metric that nobody looks at is found out here, not in an outage."""
    shown = set().union(*(CHECK.metric_names(query.expr) for query in CHECK.all_queries()))
    families = {
        re.sub("_(total|bucket|sum|count|created)$", "", name) for name in known if name.startswith("go2hooks_")
    }
    seen = {re.sub("_(total|bucket|sum|count)$", "", name) for name in shown}
    assert families - seen == {"go2hooks_deliveries_stray", "go2hooks_live_copy_age_seconds"}  # former names


def test_grafana_and_prometheus_are_told_where_things_are():
    """docker-compose.yml mounts the files at the very paths that they name."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    mounts = {}
    for service in ("prometheus", "grafana"):
        for volume in compose[service]["volumes"]:
            source, target = volume.split(":")[:2]
            if source.startswith("./"):
                assert (ROOT / source).is_dir()
                mounts[target] = ROOT / source
    provisioning = ROOT / "deploy" / "grafana" / "provisioning"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "go2hooks.yml").read_text())["providers"]
    assert mounts[provider["options"]["path"]] == CHECK.DASHBOARDS
    home = Path(compose["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (mounts[str(home.parent)] / home.name).is_file()
    (config,) = (part for part in compose["prometheus"]["command"] if part.startswith("--config.file="))
    config_path = Path(config.partition("=")[2])
    assert mounts[str(config_path.parent)] / config_path.name == CHECK.CONFIG
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    scrapes = yaml.safe_load(CHECK.CONFIG.read_text())
    assert source["jsonData"]["timeInterval"] == scrapes["global"]["scrape_interval"]
    assert {scrape["job_name"] for scrape in scrapes["scrape_configs"]} == {
        "go2hooks-api",
        "go2hooks-router",
        "go2hooks-replayer",
        "go2hooks-dispatcher",
    }
