"""The environment of processes under test."""

import os

from go2hooks.build import VARIABLE


def clean_environment() -> dict[str, str]:
    """Our own environment without GO2HOOKS_* settings, except for the one that says which build is tested."""
    return {name: value for name, value in os.environ.items() if name == VARIABLE or not name.startswith("GO2HOOKS_")}
