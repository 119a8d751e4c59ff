"""One stack for all acceptance tests that do not start their own, an account and a receiver for each test."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from recording import Recorder
from running import Account, Stack


class SharedStack:
    """A stack that is started when it is first asked for, and again after `stop`."""

    def __init__(self) -> None:
        self._running: Stack | None = None
        self._at_end = ExitStack()

    def __call__(self) -> Stack:
        if self._running is None:
            # Not pytest's own directory: it takes away the permission by which an unprivileged Postgres gets there.
            directory = tempfile.TemporaryDirectory(prefix="go2hooks-acceptance-", ignore_cleanup_errors=True)
            self._running = Stack(Path(self._at_end.enter_context(directory)))
            self._running.start()  # once: where this fails, the tests that follow fail at `mend`, at once
            self._at_end.callback(self._running.stop)
        return self._running

    def stop(self) -> None:
        self._running = None
        self._at_end.close()


shared_stack = SharedStack()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> Iterator[None]:
    """The stack ends with the last test in a row that uses it: idle, it takes a sixth of a processor from all others."""
    try:
        return (yield)
    finally:
        if "stack" not in getattr(nextitem, "fixturenames", ()):
            shared_stack.stop()


@pytest.fixture
def stack() -> Stack:
    """The stack, whole: what an earlier test killed has been started again."""
    running = shared_stack()
    running.mend()
    return running


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
