"""Ask a real Prometheus every query of the dashboards and the recording rules: each must answer, with figures that can be.

    .venv/bin/python deploy/check_dashboard.py --prometheus http://localhost:9090      one that scrapes a stack
    .venv/bin/python deploy/check_dashboard.py --data-dir .data                        one of our own, scraping a `go2hooks up`

Traffic of every kind must flow meanwhile, failures and retries included: a query without data is what this looks for.
Start the stack with GO2HOOKS_STRAY_CHECK_S=10: what got lost is else counted after a quarter of an hour, and no number before.
Exit status 1 names those that did not answer in time.
"""

import argparse
import json
import math
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from go2hooks.devstack.processes import free_port

DEPLOY: Final = Path(__file__).resolve().parent
CONFIG: Final = DEPLOY / "prometheus" / "prometheus.yml"
RULES: Final = DEPLOY / "prometheus" / "rules.yml"
DASHBOARDS: Final = DEPLOY / "grafana" / "dashboards"

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_LABELS: Final = re.compile(r"\{[^}]*\}|\[[^\]]*\]|\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_NAME: Final = re.compile(r"\b[a-zA-Z_:][\w:]*\b(?!\s*\()")
_WORDS: Final = frozenset({"and", "or", "unless", "bool", "offset"})
#: The highest value that can be, by the unit of the panel; nothing we show is negative.
_HIGHEST: Final = {"percentunit": 64.0, "s": 86_400.0, "ops": 1e6, "reqps": 1e6, "bytes": 1e11, "short": 1e9}


class Query(NamedTuple):
    """One expression, and where it stands."""

    where: str
    expr: str
    unit: str
    legend: str


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every panel but the rows, those in collapsed rows too."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panel.get("panels", ())
        else:
            yield panel


def dashboard_queries() -> list[Query]:
    """Every query of every dashboard."""
    found = []
    for path in sorted(DASHBOARDS.glob("*.json")):
        for panel in panels(json.loads(path.read_text())):
            unit = panel["fieldConfig"]["defaults"]["unit"]
            for target in panel["targets"]:
                where = f"{path.stem}: {panel['title']} {target['refId']}"
                found.append(Query(where, target["expr"], unit, target["legendFormat"]))
    return found


def rules() -> dict[str, str]:
    """Recording rules: from name to expression."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["record"]: rule["expr"] for group in groups for rule in group["rules"]}


def all_queries() -> list[Query]:
    return dashboard_queries() + [Query(f"rule {name}", expr, "ops", "") for name, expr in rules().items()]


def metric_names(expr: str) -> set[str]:
    """The names of the series that an expression reads."""
    bare = _LABELS.sub(" ", _STRING.sub('""', expr))
    return set(_NAME.findall(bare)) - _WORDS


def answer(url: str, expr: str) -> list[float]:
    """The values of an instant query, without those that are no number. Raises URLError, HTTPError."""
    with urlopen(f"{url}/api/v1/query?{urlencode({'query': expr})}", timeout=10) as response:
        result = json.load(response)["data"]["result"]
    return [value for value in (float(series["value"][1]) for series in result) if math.isfinite(value)]


def complaint(url: str, query: Query, rate_interval: str) -> str | None:
    """What is wrong with the answer to a query; None when nothing is."""
    try:
        values = answer(url, query.expr.replace("$__rate_interval", rate_interval))
    except URLError as error:
        return str(error)
    if not values:
        return "no data"
    outside = [value for value in values if not 0 <= value <= _HIGHEST[query.unit]]
    return f"{outside[0]:g} is no value for the unit {query.unit}" if outside else None


def check(url: str, queries: list[Query], *, within_s: float, rate_interval: str) -> dict[str, str]:
    """Ask until each query has answered once, for at most `within_s`. From query to complaint, for those that did not."""
    deadline = time.monotonic() + within_s
    open_queries = list(queries)
    while True:
        complaints = {query: complaint(url, query, rate_interval) for query in open_queries}
        open_queries = [query for query, text in complaints.items() if text is not None]
        if not open_queries or time.monotonic() > deadline:
            return {f"{query.where}: {query.expr}": complaints[query] or "" for query in open_queries}
        time.sleep(2.0)


def local_config(metrics: dict[str, Any], interval_s: float) -> dict[str, Any]:
    """Our configuration, with the processes of an `endpoints.json` for targets."""
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    every = f"{round(interval_s * 1000)}ms"
    config["global"] = {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every}
    config["rule_files"] = [str(RULES)]
    for scrape in config["scrape_configs"]:
        urls = metrics[scrape["job_name"].removeprefix("go2hooks-")]
        targets = [url.split("/")[2] for url in ([urls] if isinstance(urls, str) else urls)]
        scrape.pop("dns_sd_configs", None)
        scrape["static_configs"] = [{"targets": targets}]
    return config


@contextmanager
def prometheus(metrics: dict[str, Any], port: int, interval_s: float) -> Iterator[str]:
    """URL of a Prometheus of our own that scrapes the processes of an `endpoints.json`. FileNotFoundError without one."""
    with tempfile.TemporaryDirectory(prefix="go2hooks-prometheus-") as directory:
        config = Path(directory, "prometheus.yml")
        config.write_text(yaml.safe_dump(local_config(metrics, interval_s)))
        command = ["prometheus", f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}"]
        command += [f"--storage.tsdb.path={directory}/data", "--log.level=error"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(10)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--prometheus", metavar="URL", help="a Prometheus that scrapes a stack")
    where.add_argument("--data-dir", type=Path, help="of a running `go2hooks up`; needs `prometheus` on the PATH")
    parser.add_argument("--within", type=float, default=90.0, metavar="S", help="seconds to wait (default %(default)g)")
    parser.add_argument("--port", type=int, default=0, help="of our own Prometheus (default: a free one)")
    options = parser.parse_args()
    queries = all_queries()
    if options.prometheus:
        wrong = check(options.prometheus.rstrip("/"), queries, within_s=options.within, rate_interval="1m")
    else:
        metrics = json.loads((options.data_dir / "endpoints.json").read_text())["metrics"]
        with prometheus(metrics, options.port or free_port(), interval_s=1.0) as url:
            wrong = check(url, queries, within_s=options.within, rate_interval="15s")
    for text, why in wrong.items():
        print(f"{why}\n    {text}", file=sys.stderr)
    print(f"{len(queries) - len(wrong)} of {len(queries)} queries answer")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
