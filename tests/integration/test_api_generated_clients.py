"""Clients that others' generators make of `/openapi.json` compile, and create, read and delete a webhook."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
from usable_topics import make_topics

from go2hooks.postgres.api_keys import create_key
from go2hooks.settings import Settings

#: As the registry has them. Fetched once, and kept where the jars are.
NODE_PACKAGES = ("openapi-typescript@7.13.0", "openapi-fetch@0.17.0", "typescript@5.9.3", "@types/node@22.20.1")
TYPESCRIPT = """
import createClient from "openapi-fetch";
import type { paths } from "./api.js";

const [baseUrl, key] = process.argv.slice(2) as [string, string];
const api = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${key}` } });
const body = { name: "From a client", url: "https://example.com/hook", events: ["click" as const] };
const created = await api.POST("/webhooks", { body });
if (!created.data) throw new Error(created.error.error.message);
const params = { path: { webhookId: created.data.data.id } };
const read = await api.GET("/webhooks/{webhookId}", { params });
const gone = await api.DELETE("/webhooks/{webhookId}", { params });
const missing = await api.GET("/webhooks/{webhookId}", { params });
console.log(JSON.stringify([
  created.data.data.secret.slice(0, 6), read.data?.data.name, gone.data?.data.deleted, missing.error?.error.code,
]));
"""
PYTHON = """
import json, sys
from made import AuthenticatedClient
from made.api.webhooks import create_webhook, delete_webhook, get_webhook
from made.models import CreateBody, CreateBodyEventsItem

client = AuthenticatedClient(base_url=sys.argv[1], token=sys.argv[2])
body = CreateBody(name="From a client", url="https://example.com/hook", events=[CreateBodyEventsItem.CLICK])
created = create_webhook.sync(client=client, body=body).data
read = get_webhook.sync(created.id, client=client).data
gone = delete_webhook.sync(created.id, client=client).data
missing = get_webhook.sync(created.id, client=client).error
print(json.dumps([created.secret[:6], read.name, gone.deleted, missing.code]))
"""
SAID = ["whsec_", "From a client", True, "webhook_not_found"]


@pytest.fixture
def url(run_service, kafka_bootstrap, tmp_path):
    make_topics(Settings(kafka_bootstrap_servers=kafka_bootstrap))
    run_service("api", GO2HOOKS_API_PORT="0")
    return f"http://127.0.0.1:{json.loads((tmp_path / 'api-port.json').read_bytes())['port']}/api/v1"


@pytest.fixture
def document(url, tmp_path):
    path = tmp_path / "openapi.json"
    with urlopen(f"{url}/openapi.json", timeout=10) as answer:
        path.write_bytes(answer.read())
    return path


@pytest.fixture
def key(database):
    return create_key(database, "acme").key


@pytest.fixture(scope="module")
def node_modules():
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    kept = Path.home() / ".cache" / "go2hooks" / f"npm-{'-'.join(NODE_PACKAGES).replace('/', '-')}"
    if not (kept / "node_modules" / ".bin" / "tsc").exists():
        kept.mkdir(parents=True, exist_ok=True)
        (kept / "package.json").write_text('{"private": true}')
        options = ("--silent", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts")
        fetched = subprocess.run(["npm", "install", *options, *NODE_PACKAGES], cwd=kept, timeout=120, check=False)
        if fetched.returncode != 0:
            pytest.skip("no package registry can be reached")
    return kept / "node_modules"


def run(*command, cwd, **env):
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_python_client(url, document, key, tmp_path):
    command = ("-m", "openapi_python_client", "generate", "--path", document, "--meta", "none", "--fail-on-warning")
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    run(sys.executable, *command, "--output-path", tmp_path / "made", cwd=tmp_path, PATH=tools)
    assert json.loads(run(sys.executable, "-c", PYTHON, url, key, cwd=tmp_path)) == SAID


def test_a_typescript_client(url, document, key, tmp_path, node_modules):
    (tmp_path / "package.json").write_text('{"private": true, "type": "module"}')
    (tmp_path / "node_modules").symlink_to(node_modules)
    (tmp_path / "client.ts").write_text(TYPESCRIPT)
    run(node_modules / ".bin" / "openapi-typescript", document, "-o", "api.d.ts", cwd=tmp_path)
    options = ("--strict", "--target", "es2022", "--module", "nodenext", "--skipLibCheck", "--outDir", "out")
    run(node_modules / ".bin" / "tsc", *options, "client.ts", cwd=tmp_path)
    assert json.loads(run("node", "out/client.js", url, key, cwd=tmp_path)) == SAID
