"""A signed request: every header of the contract, and nothing that changes between equal calls."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from go2hooks import __version__
from go2hooks.core.domain.delivery import Delivery, Kind
from go2hooks.core.errors import HeaderError, TargetError
from go2hooks.core.security.custom_headers import check_name, check_value
from go2hooks.core.security.request import prepare, shown_headers
from go2hooks.core.security.signing import body_signature, generate_secret, standard_signature
from services.dispatcher.http.wire import serialize

SECRET, PREVIOUS = generate_secret(bytes(32)), generate_secret(b"\1" * 32)
URL = "https://example.com:8443/hooks/go2?a=b"
NOW_MS = 1_704_110_400_999
DELIVERY = Delivery(
    "dlv_1", "wh_1", "acc_1", "evt_1", "click", "2024-01-01T12:00:00Z", b'{"event":"click"}', 3, 0, Kind.EVENT, 0, False  # noqa: FBT003
)  # fmt: skip


def test_the_headers_are_those_of_the_contract():
    request = prepare(DELIVERY, URL, [SECRET], NOW_MS)
    assert request.headers == (
        ("Content-Type", "application/json"),
        ("User-Agent", f"Go2-Webhooks/{__version__}"),
        ("Accept", "*/*"),
        ("X-Webhook-ID", "wh_1"),
        ("X-Webhook-Event", "click"),
        ("X-Webhook-Signature", body_signature(SECRET, DELIVERY.body)),
        ("X-Webhook-Timestamp", "2024-01-01T12:00:00Z"),
        ("X-Webhook-Delivery", "dlv_1"),
        ("X-Webhook-Attempt", "3"),
        ("webhook-id", "dlv_1"),
        ("webhook-timestamp", "1704110400"),
        ("webhook-signature", standard_signature([SECRET], "dlv_1", 1_704_110_400, DELIVERY.body)),
    )
    assert request.body == DELIVERY.body
    assert (request.target.host, request.target.port, request.target.path) == ("example.com", 8443, "/hooks/go2?a=b")


def test_a_webhooks_own_headers_come_last_and_change_nothing_else():
    own = (("X-Tenant", "acme"), ("Authorization", "Bearer x"))
    plain = prepare(DELIVERY, URL, [SECRET], NOW_MS)
    assert prepare(DELIVERY, URL, [SECRET], NOW_MS, own_headers=own) == plain._replace(headers=plain.headers + own)


def test_no_header_of_ours_can_be_a_webhooks_own():
    for name, _ in (*prepare(DELIVERY, URL, [SECRET], NOW_MS).headers, ("Host", ""), ("Content-Length", "")):
        with pytest.raises(HeaderError, match="is set by Go2 Webhooks itself"):
            check_name(name)


@given(name=st.text(max_size=6), value=st.text(max_size=8))
def test_no_header_that_is_allowed_breaks_out_of_its_line(name, value):
    try:
        check_name(name)
        check_value(value)
    except HeaderError:
        return
    request = prepare(DELIVERY, URL, [SECRET], NOW_MS, own_headers=((name, value),))
    head, _, _ = serialize(request).partition(b"\r\n\r\n")
    assert f"{name}: {value}".encode() in head.split(b"\r\n")


def test_during_a_rotation_the_present_secret_signs_first_and_the_previous_one_too():
    headers = dict(prepare(DELIVERY, URL, [SECRET, PREVIOUS], NOW_MS).headers)
    assert headers["X-Webhook-Signature"] == body_signature(SECRET, DELIVERY.body)
    first, second = headers["webhook-signature"].split(" ")
    assert first == standard_signature([SECRET], "dlv_1", NOW_MS // 1000, DELIVERY.body)
    assert second == standard_signature([PREVIOUS], "dlv_1", NOW_MS // 1000, DELIVERY.body)


def test_webhook_id_may_carry_the_deliverys_id():
    assert dict(prepare(DELIVERY, URL, [SECRET], NOW_MS, "delivery").headers)["X-Webhook-ID"] == "dlv_1"


def test_a_url_that_cannot_be_requested_is_refused():
    with pytest.raises(TargetError):
        prepare(DELIVERY, "not a url", [SECRET], NOW_MS)


def test_only_a_test_says_that_it_is_one():
    for kind in Kind:
        headers = dict(prepare(DELIVERY._replace(kind=kind), URL, [SECRET], NOW_MS).headers)
        assert headers.get("X-Webhook-Test") == ("true" if kind == Kind.TEST else None)


@pytest.mark.parametrize("kind", Kind)
def test_what_is_shown_of_a_request_is_what_was_sent_but_for_the_signatures(kind):
    delivery = DELIVERY._replace(kind=kind)
    sent = dict(prepare(delivery, URL, [SECRET], NOW_MS, "delivery").headers)
    shown = shown_headers(delivery, NOW_MS, "delivery")
    assert set(sent) - set(shown) == {"X-Webhook-Signature", "webhook-signature"}
    assert shown.items() <= sent.items()
