"""One stack for the acceptance tests of a module, an account and a receiver for each."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from recording import Recorder
from running import Account, Stack


@pytest.fixture(scope="module")  # a session's would take a quarter of a processor from all other tests
def running_stack() -> Iterator[Stack]:
    # Not pytest's own directory: it takes away the permission by which an unprivileged Postgres gets there.
    with tempfile.TemporaryDirectory(prefix="go2hooks-acceptance-", ignore_cleanup_errors=True) as directory:
        stack = Stack(Path(directory))
        try:
            stack.start()
            yield stack
        finally:
            stack.stop()


@pytest.fixture
def stack(running_stack: Stack) -> Stack:
    """The stack, whole: what an earlier test killed has been started again."""
    running_stack.mend()
    return running_stack


@pytest.fixture
def account(stack: Stack) -> Account:
    return stack.account()


@pytest.fixture
def new_account(stack: Stack) -> Callable[[], Account]:
    return stack.account


@pytest.fixture(scope="session")
def receiver() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.close()
