"""What these tests share: JavaScript where there is one, and a dispatcher without servers."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scene import Scene

VECTORS = Path(__file__).parent / "vectors"


@pytest.fixture(scope="session")
def javascript() -> Iterator[Callable[[dict[str, str]], str]]:
    """Asks `vectors/oracle.mjs` in one long-lived node process; skips the test where there is no node."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on this machine")
    with subprocess.Popen(
        [node, str(VECTORS / "oracle.mjs")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:

        def ask(question: dict[str, str]) -> str:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            assert isinstance(answer, str)
            return answer

        yield ask
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
async def scene() -> Scene:
    return Scene()
