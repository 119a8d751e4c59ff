"""The subscription index against a scan of all webhooks."""

import itertools
import sys
import threading

from hypothesis import given
from hypothesis import strategies as st

from go2hooks.core.domain.event import SUBSCRIBABLE, WILDCARD, EventType
from go2hooks.core.domain.filters import compile_filter
from go2hooks.core.domain.matching import SubscriptionIndex
from go2hooks.core.domain.webhook import Webhook, WebhookOptions

ACCOUNTS = ("acc_1", "acc_2")
webhooks = st.builds(
    Webhook,
    id=st.sampled_from([f"wh_{n}" for n in range(6)]),
    account_id=st.sampled_from(ACCOUNTS),
    url=st.just("https://example.com"),
    events=st.frozensets(st.sampled_from(SUBSCRIBABLE), min_size=1),
    is_active=st.booleans(),
    is_deleted=st.booleans(),
    sealed_secret=st.just(b""),
    sealed_previous_secret=st.none(),
    previous_secret_expires_ms=st.just(0),
    options=st.sampled_from(
        [None, WebhookOptions(rate_limit=5.0), *(WebhookOptions(filter=compile_filter({"n": [n]})) for n in (1, 2))]
    ),
)


def passes(webhook, data):
    return webhook.options is None or webhook.options.filter is None or webhook.options.filter.matches(data)


@given(changes=st.lists(webhooks, max_size=30))
def test_the_index_finds_what_a_scan_finds_each_once(changes):
    index = SubscriptionIndex()
    present: dict[str, Webhook] = {}
    for webhook in changes:
        index.apply(webhook)
        present[webhook.id] = webhook
    living = [webhook for webhook in present.values() if not webhook.is_deleted]
    assert len(index) == len(living)
    for account in ACCOUNTS:
        for event in (*EventType, "invented.later"):
            for data in ({"n": 1}, {"n": 2}, {}):
                wanted = sorted(w.id for w in living if w.account_id == account and w.wants(event) and passes(w, data))
                assert sorted(index.match(account, event, data)) == wanted


@given(changes=st.lists(webhooks, max_size=20))
def test_nothing_stays_behind_when_every_webhook_is_deleted(changes):
    index = SubscriptionIndex()
    for webhook in changes:
        index.apply(webhook)
    for webhook in changes:
        index.apply(webhook._replace(is_deleted=True))
    assert (len(index), index._ids, index._filtered, index._filters) == (0, {}, {}, {})


def test_who_wants_an_event_before_and_after_a_change_is_found_in_the_middle_of_it():
    """The replica's thread changes it while the router matches: what is missed then is missed for good."""
    index = SubscriptionIndex(threading.Lock())
    hook = Webhook("wh_1", "acc", "https://example.com", frozenset({"click"}), True, False, b"", None, 0)  # noqa: FBT003
    forms = [hook._replace(events=frozenset(e)) for e in ({"click"}, {"click", "link.created"}, {WILDCARD})]
    index.apply(hook)
    ended = threading.Event()

    def change() -> None:
        for form in itertools.islice(itertools.cycle(forms), 60_000):
            index.apply(form)
        ended.set()

    found = set()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        thread = threading.Thread(target=change)
        thread.start()
        while not ended.is_set():
            found.add(index.match("acc", "click", {}))
        thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert found == {("wh_1",)}


def test_an_account_cannot_be_made_to_look_like_anothers_event():
    index = SubscriptionIndex()
    hook = Webhook("wh_1", "acc", "https://example.com", frozenset({WILDCARD}), True, False, b"", None, 0)  # noqa: FBT003
    index.apply(hook)
    assert index.match("acc\0*", "", {}) == ()
    assert index.match("acc", "click", {}) == ("wh_1",)
