"""Attack the control API with what its own OpenAPI document suggests: schemathesis, all checks, all phases.

    python bench/schema_attack.py --url http://127.0.0.1:8080/api/v1 --key go2_… --victim-key go2_… --max-examples 1000

It sends what the document allows (which must be accepted) and what it forbids (which must be refused), leaves keys out and
makes them up, walks from created webhooks to what can be done with them, and asks with one account's key for what the
other created. Every answer must be one that the document tells of. Give the API no limits on requests meanwhile.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

HOOKS = Path(__file__).with_name("schemathesis_hooks.py")
CONFIG = """\
hooks = {hooks}
max-failures = 20

[checks.negative_data_rejection]  # what is wrong may be too large besides
expected-statuses = ["400", "401", "403", "404", "405", "406", "409", "413", "415", "422", "428", "429", "431"]

[auth.wfc]
path = {auth}
peers = ["one", "other"]

[[operations]]  # a webhook that was just created has none: schemathesis takes what is below it for a part of it
include-path = "/webhooks/{{webhookId}}/client-certificate"
checks.ensure_resource_availability.enabled = false
"""


class Outcome(NamedTuple):
    """What schemathesis said, and whether it was content."""

    is_clean: bool
    output: str


def run(url: str, key: str, other_key: str, *, seed: int, max_examples: int, max_time_s: int | None = None) -> Outcome:
    """Attack as two accounts, at most `max_examples` requests per operation and phase; with `max_time_s` as long as that."""
    with tempfile.TemporaryDirectory(prefix="go2hooks-schemathesis-") as directory:
        config, auth = Path(directory, "schemathesis.toml"), Path(directory, "auth.json")
        keys = {"one": key, "other": other_key}
        auth.write_text(json.dumps({"auth": [_header(name, each) for name, each in keys.items()]}))
        config.write_text(CONFIG.format(hooks=json.dumps(str(HOOKS)), auth=json.dumps(str(auth))))
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run", f"{url}/openapi.json"]
        command += ["--seed", str(seed), "--max-examples", str(max_examples), "--no-color", "--continue-on-failure"]
        command += [] if max_time_s is None else ["--max-time", str(max_time_s)]
        done = subprocess.run(
            command, cwd=directory, env=os.environ | {"COLUMNS": "120"}, capture_output=True, text=True, check=False
        )
    has_tried = "No test cases were generated" not in done.stdout  # it succeeds then, too
    return Outcome(done.returncode == 0 and has_tried, done.stdout + done.stderr)


def _header(name: str, key: str) -> dict[str, object]:
    return {"name": name, "fixedHeaders": [{"name": "Authorization", "value": f"Bearer {key}"}]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="base of the API, such as http://127.0.0.1:8080/api/v1")
    parser.add_argument("--key", required=True, help="an API key")
    parser.add_argument("--victim-key", required=True, help="an API key of another account")
    parser.add_argument("--max-examples", type=int, default=1000)
    parser.add_argument("--max-time", type=int, help="seconds to go on for")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    outcome = run(
        options.url,
        options.key,
        options.victim_key,
        seed=options.seed,
        max_examples=options.max_examples,
        max_time_s=options.max_time,
    )
    print(outcome.output)
    return 0 if outcome.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
