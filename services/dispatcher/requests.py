"""Makes a delivery's signed request, and finds its client certificate; or says why there is none.

A defect of ours, or a secret that cannot be decrypted, must affect this delivery only, and only for a while: it becomes
an attempt without an answer, and is tried again.
"""

from typing import Final, Literal

import structlog

from go2hooks.core.domain.delivery import Delivery
from go2hooks.core.domain.outcome import Failure, NoAnswer
from go2hooks.core.domain.webhook import Webhook
from go2hooks.core.errors import SealError, TargetError
from go2hooks.core.security.request import SignedRequest, prepare
from services.dispatcher.http import failures
from services.dispatcher.http.identity import Identity
from services.dispatcher.identities import Identities
from services.dispatcher.webhooks import Webhooks

log = structlog.get_logger(__name__)

FAILED_INSIDE: Final = NoAnswer(*failures.INSIDE, 0.0)


class Requests:
    """Makes requests from the replica. Neither method raises."""

    def __init__(self, webhooks: Webhooks, identities: Identities, id_header: Literal["webhook", "delivery"]) -> None:
        """`id_header` says whose id goes out in `X-Webhook-ID`."""
        self._webhooks = webhooks
        self._identities = identities
        self._id_header = id_header

    def make(self, delivery: Delivery, webhook: Webhook | None, at_ms: int) -> SignedRequest | NoAnswer:
        """Signed with the secrets that are valid at `at_ms` (milliseconds since the epoch)."""
        if webhook is None:  # the replica's thread has deleted it since; the retry finds that out
            return NoAnswer(Failure.INVALID_URL, "The webhook was deleted.", 0.0)
        try:
            secrets = self._webhooks.secrets(webhook, at_ms)
            own_headers = () if webhook.options is None else self._webhooks.headers(webhook.id, webhook.options)
            return prepare(delivery, webhook.url, secrets, at_ms, self._id_header, own_headers)
        except TargetError as error:
            return NoAnswer(Failure.INVALID_URL, str(error), 0.0)
        except SealError:
            log.error(  # noqa: TRY400  # the traceback says nothing more
                "secret cannot be opened; is its key in GO2HOOKS_SECRET_KEYS?", webhook_id=delivery.webhook_id
            )
            return NoAnswer(Failure.SECRET_UNAVAILABLE, "The webhook's secrets could not be read.", 0.0)
        except Exception:
            log.exception("request could not be prepared", delivery_id=delivery.id)
            return FAILED_INSIDE

    async def identify(self, webhook: Webhook) -> Identity | NoAnswer | None:
        """The webhook's client certificate, fetched if necessary; None when it has been removed."""
        try:
            return await self._identities.find(webhook)
        except Exception:
            log.exception("client certificate could not be fetched", webhook_id=webhook.id)
            return FAILED_INSIDE
