"""Compares the ledger with the API's data, delivery by delivery. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from go2hooks.core.domain.event import EventType
from go2hooks.core.domain.outcome import State
from go2hooks.demo.ledger import Account, Expected
from go2hooks.demo.plan import Behaviour

_ENDED: Final = (State.SKIPPED, State.FAILED)


@dataclass(frozen=True, slots=True)
class History:
    """The API's data about one webhook."""

    webhook: Mapping[str, Any]
    deliveries: Mapping[str, Mapping[str, Any]]  #: by id


@dataclass(slots=True)
class Findings:
    """Differences: `missing` may still arrive; `wrong` is final."""

    missing: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        return self.wrong + self.missing


def compare(account: Account, history: History, *, disable_after: int, max_attempts: int) -> Findings:
    """The differences for one webhook."""
    findings = Findings(list(_missing(account, history)), list(_wrong(account, history)))
    if account.subscription.behaviour is Behaviour.BROKEN:
        _judge_disabling(account, history, findings, disable_after=disable_after, max_attempts=max_attempts)
    else:
        _judge_deliveries(account, history, findings)
    name = account.subscription.name
    return Findings([f"{name}: {text}" for text in findings.missing], [f"{name}: {text}" for text in findings.wrong])


def _missing(account: Account, history: History) -> Iterator[str]:
    unrecorded = account.expected.keys() - history.deliveries.keys()
    if unrecorded:
        yield f"{_some(unrecorded)} not in the history"
    if account.subscription.behaviour is not Behaviour.BROKEN:
        if (
            account.subscription.wants(EventType.WEBHOOK_DISABLED)
            and EventType.WEBHOOK_DISABLED not in account.told.values()
        ):
            yield f"{EventType.WEBHOOK_DISABLED} not delivered"
        absent = [identity for identity, entry in account.expected.items() if not entry.complete]
        if absent:
            yield f"{_some(absent)} not delivered"


def _wrong(account: Account, history: History) -> Iterator[str]:
    strange = history.deliveries.keys() - account.expected.keys() - account.told.keys()
    if strange:
        yield f"{_some(strange)} in the history, but never sent"
    for identity, entry in account.expected.items():
        if entry.attempts != list(range(1, len(entry.attempts) + 1)) or _too_many(entry):
            yield f"{identity} arrived as attempts {entry.attempts}"


def _too_many(entry: Expected) -> bool:
    return entry.failures_due is not None and len(entry.attempts) > entry.failures_due + 1


def _judge_deliveries(account: Account, history: History, findings: Findings) -> None:
    unlike = [
        identity
        for identity, entry in account.expected.items()
        if (shown := history.deliveries.get(identity)) is not None
        and (shown["status"], shown["attempts"]) != (State.DELIVERED, len(entry.attempts))
    ]
    if unlike:
        findings.missing.append(f"{_some(unlike)} not recorded as delivered with the attempts that arrived")
    if not history.webhook["isActive"]:
        findings.wrong.append(f"disabled ({history.webhook['disabledReason']}), though its receiver works")


def _judge_disabling(
    account: Account, history: History, findings: Findings, *, disable_after: int, max_attempts: int
) -> None:
    webhook = history.webhook
    if webhook["isActive"]:
        findings.missing.append(f"still active after {account.requests} failed attempts")
        return
    if "consecutive failed attempts" not in (webhook["disabledReason"] or "") or not webhook["disabledAt"]:
        findings.wrong.append(f"disabled with the reason {webhook['disabledReason']!r}")
    if account.requests < disable_after:
        findings.wrong.append(f"disabled after {account.requests} failed attempts, {disable_after} were due")
    unlike = [
        identity
        for identity, shown in history.deliveries.items()
        if not _ended_rightly(shown, account.expected.get(identity), max_attempts)
    ]
    if unlike:
        findings.missing.append(f"{_some(unlike)} not recorded as skipped with the attempts that arrived")


def _ended_rightly(shown: Mapping[str, Any], entry: Expected | None, max_attempts: int) -> bool:
    if entry is None or shown["status"] not in _ENDED or shown["attempts"] != len(entry.attempts):
        return False
    return bool(shown["status"] == State.SKIPPED or shown["attempts"] == max_attempts)


def _some(identities: Iterable[str]) -> str:
    all_named = sorted(identities)
    named = all_named[:3]
    more = ", …" if len(all_named) > len(named) else ""
    return f"{len(all_named):,} deliver{'y' if len(all_named) == 1 else 'ies'} ({', '.join(named)}{more})"
