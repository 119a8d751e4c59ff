"""A signed request, ready for the wire."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from go2hooks import __version__
from go2hooks.core.domain.delivery import Delivery, Kind
from go2hooks.core.security.signing import body_signature, standard_signature
from go2hooks.core.security.target import Target, parse_target

USER_AGENT = f"Go2-Webhooks/{__version__}"


class SignedRequest(NamedTuple):
    """One attempt's POST. The sender adds the request line, Host and Content-Length, and changes nothing else."""

    target: Target
    headers: tuple[tuple[str, str], ...]  #: in the order in which they are sent
    body: bytes


def prepare(
    delivery: Delivery,
    url: str,
    secrets: Sequence[str],
    now_ms: int,
    id_header: Literal["webhook", "delivery"] = "webhook",
    own_headers: tuple[tuple[str, str], ...] = (),
) -> SignedRequest:
    """The POST for this attempt, signed with the present secret and, during a rotation's overlap, the previous one.

    `secrets` has the current one first. `own_headers` are the webhook's; none of them has the name of one of ours.
    Raises TargetError for a URL that cannot be requested.
    """
    at_s = now_ms // 1000
    body_signed = body_signature(secrets[0], delivery.body)
    signed = standard_signature(secrets, delivery.id, at_s, delivery.body)
    headers = _headers(delivery, at_s, id_header, body_signed, signed)
    return SignedRequest(parse_target(url), headers + own_headers if own_headers else headers, delivery.body)


def shown_headers(
    delivery: Delivery,
    at_ms: int,
    id_header: Literal["webhook", "delivery"] = "webhook",
    own_headers: Sequence[tuple[str, str | None]] = (),
) -> dict[str, str]:
    """What this attempt was sent with, for its owner to see: without the signatures, and without what is not known.

    `own_headers` are the webhook's; None as a value stands for one that is secret, which is left out.
    """
    headers = (*_headers(delivery, at_ms // 1000, id_header, "", ""), *own_headers)
    return {name: value for name, value in headers if value}


def _headers(
    delivery: Delivery, at_s: int, id_header: Literal["webhook", "delivery"], body_signed: str, signed: str
) -> tuple[tuple[str, str], ...]:
    headers: tuple[tuple[str, str], ...] = (
        ("Content-Type", "application/json"),
        ("User-Agent", USER_AGENT),
        ("Accept", "*/*"),  # some web application firewalls refuse a request without
        ("X-Webhook-ID", delivery.webhook_id if id_header == "webhook" else delivery.id),
        ("X-Webhook-Event", delivery.event),
        ("X-Webhook-Signature", body_signed),
        ("X-Webhook-Timestamp", delivery.timestamp),
        ("X-Webhook-Delivery", delivery.id),
        ("X-Webhook-Attempt", str(delivery.attempt)),
        ("webhook-id", delivery.id),
        ("webhook-timestamp", str(at_s)),
        ("webhook-signature", signed),
    )
    return headers if delivery.kind != Kind.TEST else (*headers, ("X-Webhook-Test", "true"))
