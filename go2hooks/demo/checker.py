"""Watches until everything has arrived or the time is up, then reports the differences."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from go2hooks.core.domain.outcome import State
from go2hooks.demo.control import Control
from go2hooks.demo.ledger import Ledger
from go2hooks.demo.plan import Behaviour
from go2hooks.demo.screen import DONE, Progress, Screen
from go2hooks.demo.sending import DemoSender
from go2hooks.demo.verdict import Findings, History, compare
from go2hooks.devstack.supervisor import Stack
from go2hooks.settings import Settings

_ASK_EVERY_S: Final = 0.5


@dataclass(slots=True)
class DemoVerdict:
    """The API's last state by webhook id, and the problems."""

    histories: Mapping[str, History] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class DemoChecker:
    """It also steps the stack: everything here runs in the main thread."""

    def __init__(
        self, stack: Stack, control: Control, ledger: Ledger, screen: Screen, progress: Progress, settings: Settings
    ) -> None:
        self._stack = stack
        self._control = control
        self._ledger = ledger
        self._screen = screen
        self._progress = progress
        self._settings = settings
        self._asked = 0.0

    def watch(self, sending: DemoSender, deadline: float) -> DemoVerdict:
        """Block until the verdict, which is there soon after `deadline` (monotonic) at the latest."""
        while time.monotonic() < deadline:
            self._tick()
            if sending.over and self._all_came():
                self._progress.phase = "Checking"
                histories, findings = self._check()
                if not findings.missing:
                    return self._conclude(histories, findings)
            elif sending.over:
                self._progress.phase = "Arriving"
        sending.stop()
        histories, findings = self._check()
        findings.missing.append("the time was up before everything had come")
        return self._conclude(histories, findings)

    def _tick(self) -> None:
        self._stack.step(time.monotonic())
        if time.monotonic() - self._asked >= _ASK_EVERY_S:
            self._asked = time.monotonic()
            ids = (account.webhook_id for account in self._ledger.accounts)
            self._progress.disabled |= {identity for identity in ids if not self._control.is_active(identity)}
        self._screen.show(self._ledger, self._progress)
        time.sleep(0.25)  # drawing slows the receiver, which is in the same process

    def _all_came(self) -> bool:
        """Whether all deliveries have arrived and the broken webhook is disabled."""
        return all(
            account.webhook_id in self._progress.disabled
            if account.subscription.behaviour is Behaviour.BROKEN
            else all(entry.complete for entry in account.expected.values())
            for account in self._ledger.accounts
        )

    def _check(self) -> tuple[dict[str, History], Findings]:
        self._wait_quiet()
        histories, all_found = {}, Findings()
        for account in self._ledger.accounts:
            history = histories[account.webhook_id] = self._control.history(account.webhook_id)
            skipped = sum(shown["status"] == State.SKIPPED for shown in history.deliveries.values())
            self._progress.skipped[account.webhook_id] = skipped
            found = compare(
                account,
                history,
                disable_after=self._settings.disable_after_failures,
                max_attempts=len(self._settings.retry_delays) + 1,
            )
            all_found.missing += found.missing
            all_found.wrong += found.wrong
        return histories, all_found

    def _wait_quiet(self) -> None:
        for _ in range(3):
            before = self._requests()
            time.sleep(1.0)  # long enough for a duplicate to come
            if self._requests() == before:
                return

    def _requests(self) -> int:
        return sum(account.requests for account in self._ledger.accounts)

    def _conclude(self, histories: Mapping[str, History], findings: Findings) -> DemoVerdict:
        self._progress.phase = DONE
        self._screen.show(self._ledger, self._progress)
        return DemoVerdict(histories, self._ledger.problems + findings.wrong + findings.missing)
