"""`run_mypyc.py TARGET BETWEEN`: compile the modules that pyproject.toml lists, in the current directory, on all cores.

TARGET gets the compiled modules, laid out as their packages; BETWEEN the C and object files. Neither may exist.
"""

import os
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import setuptools
from mypyc.build import mypycify
from setuptools.command.build_ext import build_ext

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main(target: Path, between: Path) -> None:
    tool = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["tool"]
    config = tool["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]
    started = time.monotonic()

    def say(what: str) -> None:
        print(f"Compiling {len(config['modules'])} modules: {what} ({time.monotonic() - started:.0f} s)", flush=True)

    say("about a minute")
    between.mkdir()
    extensions = to_c(config, between)
    say("now C")
    building = ParallelBuild(setuptools.Distribution({"ext_modules": extensions}))
    building.build_lib, building.build_temp, building.parallel = str(target), str(between), CORES
    building.ensure_finalized()
    building.run()
    say("done")


def to_c(config: dict[str, Any], between: Path) -> list[setuptools.Extension]:
    """Check the types and write the C. What mypyc says is shown when it refuses: errors, among remarks on slow code."""
    remarks = between / "remarks"
    try:
        with remarks.open("w", encoding="utf-8") as file, redirect_stdout(file):
            arguments = ["--config-file=", *config["mypy-args"], *config["modules"]]
            return mypycify(arguments, target_dir=str(between), **config["options"])
    except SystemExit:
        sys.stderr.write(remarks.read_text(encoding="utf-8"))
        raise


class ParallelBuild(build_ext):
    """Compiles the C files of one extension at the same time, and not only several extensions."""

    def build_extensions(self) -> None:
        compile_in_turn = self.compiler.compile

        def compile_together(sources: list[str], **options: Any) -> list[str]:
            made = pool.map(lambda source: compile_in_turn([source], **options), sources)
            return [file for files in made for file in files]

        with ThreadPoolExecutor(CORES) as pool:
            self.compiler.compile = compile_together
            super().build_extensions()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
