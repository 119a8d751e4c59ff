"""`go2hooks demo`, as `make demo` and CI run it."""

import os
import subprocess
import sys
from pathlib import Path

GO2HOOKS = Path(sys.executable).with_name("go2hooks")


def test_the_demo_proves_itself_on_servers_of_its_own_without_a_terminal(tmp_path: Path):
    """It ends by itself, with status 0, leaves nothing behind, and touches no server that the environment names."""
    picture = tmp_path / "demo.svg"
    env = os.environ | {
        "GO2HOOKS_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/production",
        "GO2HOOKS_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "TMPDIR": "/tmp",  # an unprivileged Postgres has to get there
    }
    demo = subprocess.run(
        [GO2HOOKS, "demo", "--events", "900", "--rate", "300", "--picture", picture],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "Everything arrived exactly as it had to." in demo.stdout
    assert "attempts 1 → 2 → 3" in demo.stdout
    assert "\x1b" not in demo.stdout
    assert "<svg" in picture.read_text(encoding="utf-8")
    assert "@font-face" not in picture.read_text(encoding="utf-8")
