"""The demo's judgement: what it must not let pass."""

from collections import Counter

import pytest

from go2hooks.core.domain.event import PRODUCED, Event, EventType
from go2hooks.core.domain.samples import example_payload
from go2hooks.core.security.signing import body_signature, generate_secret, standard_signature
from go2hooks.demo.ledger import Account, Ledger, percentile
from go2hooks.demo.plan import FALTERS, SUBSCRIPTIONS, Behaviour, event_types, failures_due
from go2hooks.demo.verdict import Findings, History, compare
from go2hooks.listening.receiver import Received

SECRET = generate_secret(bytes(32))
WEBHOOK = "wh_1"
COUNT = 3000


class Scene:
    """One webhook, one event of number `number`, and a receiver."""

    def __init__(self, slug: str, monkeypatch: pytest.MonkeyPatch, number: int = 0) -> None:
        monkeypatch.setattr("time.time_ns", lambda: 1_704_110_400 * 1_000_000_000)
        subscription = next(s for s in SUBSCRIPTIONS if s.slug == slug)
        self.account = Account(subscription, WEBHOOK, SECRET)
        self.ledger = Ledger()
        self.ledger.open(f"/{slug}", self.account)
        kind = next(kind for kind in EventType if subscription.wants(kind))
        self.ledger.expect(Event("evt_1", "local", kind, 1_704_110_400_000, example_payload(kind).data), number, COUNT)
        ((self.id, self.entry),) = self.account.expected.items()

    def request(self, attempt: int = 1, **changed: str) -> Received:
        body = changed.pop("body", self.entry.body.decode()).encode()
        headers = {
            "content-type": "application/json",
            "x-webhook-id": WEBHOOK,
            "x-webhook-event": self.entry.event,
            "x-webhook-timestamp": self.entry.timestamp,
            "x-webhook-delivery": self.id,
            "x-webhook-attempt": str(attempt),
            "x-webhook-signature": body_signature(SECRET, body),
            "webhook-id": self.id,
            "webhook-timestamp": "1704110400",
            "webhook-signature": standard_signature([SECRET], self.id, 1_704_110_400, body),
        }
        renamed = {name.replace("_", "-"): value for name, value in changed.items()}
        return Received(f"/{self.account.subscription.slug}", headers | renamed, body)

    def judge(self, status: str, attempts: int, **webhook: object) -> Findings:
        shown = {"isActive": True, "disabledAt": None, "disabledReason": None} | webhook
        history = History(shown, {self.id: {"status": status, "attempts": attempts}} if status else {})
        return compare(self.account, history, disable_after=2, max_attempts=6)


@pytest.fixture
def clicks(monkeypatch) -> Scene:
    return Scene("clicks", monkeypatch)


@pytest.fixture
def broken(monkeypatch) -> Scene:
    return Scene("broken", monkeypatch)


DISABLED = {"isActive": False, "disabledAt": "…", "disabledReason": "2 consecutive failed attempts"}


def test_half_of_the_events_are_clicks_and_every_other_type_is_among_them():
    kinds = Counter(event_types(COUNT))
    assert kinds.keys() == set(PRODUCED)
    assert kinds.pop(EventType.CLICK) == COUNT // 2
    assert max(kinds.values()) - min(kinds.values()) <= 1


def test_the_faltering_receiver_falters_at_some_of_its_deliveries_and_recovers_by_half_time():
    faltering = next(s for s in SUBSCRIPTIONS if s.behaviour is Behaviour.FALTERING)
    numbers = [n for n in range(COUNT) if failures_due(faltering, n, COUNT)]
    kinds = list(event_types(COUNT))
    assert len(numbers) >= 5
    assert max(numbers) < COUNT // 2
    assert all(faltering.wants(kinds[n]) for n in numbers)


def test_what_arrives_once_and_is_recorded_so_passes(clicks):
    assert clicks.ledger.take(clicks.request()) == 200
    assert clicks.ledger.problems == []
    assert clicks.judge("delivered", 1).problems == []


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x_webhook_signature", "sha256=00"),
        ("webhook_signature", "v1,AAAA"),
        ("x_webhook_id", "wh_2"),
        ("x_webhook_event", "qr.scanned"),
        ("x_webhook_timestamp", "2024-01-01T12:00:01Z"),
        ("webhook_id", "dlv_2"),
        ("webhook_timestamp", "1704110000"),
        ("content_type", "text/plain"),
        ("body", '{"event":"click"}'),
    ],
)
def test_a_wrong_header_signature_or_body_is_noticed(clicks, header, value):
    clicks.ledger.take(clicks.request(**{header: value}))
    assert clicks.ledger.problems


def test_a_delivery_that_nobody_expected_is_noticed(clicks):
    clicks.ledger.take(clicks.request(x_webhook_delivery="dlv_2"))
    assert "nobody expected" in clicks.ledger.problems[0]


def test_who_gets_everything_has_to_be_told_of_the_webhook_that_was_disabled(monkeypatch):
    scene = Scene("everything", monkeypatch)
    scene.ledger.take(scene.request())
    assert "webhook.disabled not delivered" in scene.judge("delivered", 1).missing[0]
    scene.ledger.take(scene.request(x_webhook_event="webhook.disabled", x_webhook_delivery="dlv_2"))
    assert scene.ledger.problems == []
    assert scene.judge("delivered", 1).problems == []


def test_what_is_told_has_to_be_signed_and_wanted(monkeypatch, clicks):
    scene = Scene("everything", monkeypatch)
    forged = {"x_webhook_event": "webhook.disabled", "x_webhook_delivery": "dlv_2", "x_webhook_signature": "sha256=00"}
    scene.ledger.take(scene.request(**forged))
    assert "does not verify" in scene.ledger.problems[0]
    clicks.ledger.take(clicks.request(x_webhook_event="webhook.disabled", x_webhook_delivery="dlv_2"))
    assert "nobody expected" in clicks.ledger.problems[0]


def test_a_delivery_that_does_not_arrive_is_missing(clicks):
    assert "not delivered" in clicks.judge("delivered", 1).missing[0]


def test_a_delivery_that_is_not_recorded_is_missing(clicks):
    clicks.ledger.take(clicks.request())
    assert "not in the history" in clicks.judge("", 0).missing[0]


def test_a_duplicate_cannot_be_mended(clicks):
    for _ in range(2):
        clicks.ledger.take(clicks.request())
    assert "arrived as attempts [1, 1]" in clicks.judge("delivered", 1).wrong[0]


def test_a_record_with_another_number_of_attempts_is_noticed(clicks):
    clicks.ledger.take(clicks.request())
    assert clicks.judge("delivered", 2).missing


def test_a_working_webhook_that_was_disabled_is_noticed(clicks):
    clicks.ledger.take(clicks.request())
    assert "disabled" in clicks.judge("delivered", 1, **DISABLED).wrong[0]


def test_a_faltering_delivery_has_to_come_three_times_in_order(monkeypatch):
    scene = Scene("faltering", monkeypatch, number=1)
    assert [scene.ledger.take(scene.request(n)) for n in range(1, FALTERS + 2)] == [503, 503, 200]
    assert scene.judge("delivered", 3).problems == []


def test_a_retry_that_skips_a_number_is_wrong(monkeypatch):
    scene = Scene("faltering", monkeypatch, number=1)
    for attempt in (1, 3):
        scene.ledger.take(scene.request(attempt))
    assert scene.judge("delivered", 2).wrong


def test_the_broken_webhook_passes_only_disabled_and_with_the_rest_skipped(broken):
    assert [broken.ledger.take(broken.request(n)) for n in (1, 2)] == [500, 500]
    assert broken.judge("skipped", 2, **DISABLED).problems == []
    assert "still active" in broken.judge("skipped", 2).missing[0]
    assert broken.judge("retrying", 2, **DISABLED).missing
    assert broken.judge("failed", 2, **DISABLED).missing
    assert broken.judge("skipped", 1, **DISABLED).missing
    assert broken.judge("skipped", 2, **DISABLED | {"disabledReason": None}).wrong


def test_a_webhook_that_was_disabled_too_soon_is_noticed(broken):
    broken.ledger.take(broken.request())
    assert "2 were due" in broken.judge("skipped", 1, **DISABLED).wrong[0]


def test_percentiles_of_few_values():
    assert percentile([], 0.5) == 0
    assert percentile([1.0], 0.99) == 1
    assert percentile([float(n) for n in range(1, 101)], 0.5) == 51
