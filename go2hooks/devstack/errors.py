"""Errors of the embedded stack. Every message names the remedy."""

import errno
from pathlib import Path

from go2hooks.core.errors import Go2HooksError


class StackError(Go2HooksError):
    """The embedded stack cannot start or go on. The message names the remedy."""


def explain_os_error(error: OSError, path: Path) -> StackError:
    """Say what the operating system refused at `path`, and what to do about it."""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return StackError(
                f"The disk that holds {path} is full. Free some space (1 GB is plenty), then start again."
            )
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return StackError(
                f"No permission to write to {path}. Choose another directory with --data-dir, or change its owner."
            )
        case _:
            return StackError(f"{path}: {error.strerror or error}. Choose another directory with --data-dir.")
