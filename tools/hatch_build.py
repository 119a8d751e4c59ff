"""Hatchling's hook for a compiled wheel (HATCH_BUILD_HOOKS_ENABLE=1): what tools/compile.py makes, beside the sources of it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompiledModules(BuildHookInterface):
    """Compiles, unless there is a build of exactly these sources already."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        subprocess.run([sys.executable, "tools/compile.py"], cwd=self.root, check=True)
        sys.path.insert(0, self.root)
        from go2hooks.build import SUFFIX, directory_for  # noqa: PLC0415  # in an isolated build it is found only now

        made = directory_for(Path(self.root))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"] |= {str(path): str(path.relative_to(made)) for path in made.rglob(f"*{SUFFIX}")}
