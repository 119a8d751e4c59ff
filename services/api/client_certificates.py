"""`/webhooks/{id}/client-certificate`: what a webhook identifies itself by to a receiver that asks for it (mTLS)."""

from datetime import UTC, datetime
from typing import Annotated

import psycopg
from flask import Blueprint, Response
from pydantic import Field, StringConstraints

from go2hooks.core.errors import CertificateError, PrivateKeyError
from go2hooks.core.security.certificate import LIMITS, describe, read_client_certificate
from go2hooks.postgres import client_certificates
from go2hooks.postgres.audit import Action, Changes
from go2hooks.postgres.client_certificates import NEEDS_HTTPS, StoredCertificate
from go2hooks.postgres.secrets import Purpose
from go2hooks.postgres.session import Session
from services.api.answers import failure, iso, success
from services.api.bodies import Body
from services.api.changes import record
from services.api.context import account_id, services
from services.api.errors import ApiError, invalid
from services.api.operations import Returns, operation
from services.api.shapes.webhooks import ClientCertificate, DeletedWebhook
from services.api.webhooks import URL_PREFIX, admit, locked_webhook, own_webhook

blueprint = Blueprint("client_certificates", __name__, url_prefix=URL_PREFIX)
blueprint.before_request(admit)


class CertificateBody(Body):
    """PUT /webhooks/{id}/client-certificate: both as PEM."""

    certificate: Annotated[str, StringConstraints(max_length=LIMITS.chain_chars)]
    """The certificate, then those between it and the root, as PEM."""
    private_key: Annotated[str, StringConstraints(max_length=LIMITS.key_chars)] = Field(
        alias="privateKey", repr=False, json_schema_extra={"writeOnly": True}
    )
    """Its private key as PEM, without a password. Never shown again."""


@blueprint.put("/<webhook_id>/client-certificate")
@operation("Give a webhook a client certificate", Returns(ClientCertificate), errors=(409,))
def put_certificate(webhook_id: str, body: CertificateBody) -> Response:
    """Add it, or replace the one before: in force within a second. The key is never shown again."""
    try:
        checked = read_client_certificate(body.certificate, body.private_key, datetime.now(UTC))
    except CertificateError as error:
        raise invalid({"certificate": str(error)}) from None
    except PrivateKeyError as error:
        raise invalid({"privateKey": str(error)}) from None
    sealed_key = services().secret_box.seal(checked.private_key, webhook_id, Purpose.CLIENT_KEY)
    stored = StoredCertificate(webhook_id, checked.digest, checked.chain, sealed_key, checked.not_after)
    with services().pool.transaction() as conn:
        locked_webhook(conn, webhook_id)
        replaced = client_certificates.digest_of(conn, webhook_id)
        client_certificates.put(conn, account_id(), stored)
        record(conn, Action.CERTIFICATE_PUT, webhook_id, _replaced(replaced, checked.digest))
        return success(_shown(checked.chain))


@blueprint.get("/<webhook_id>/client-certificate")
@operation("A webhook's client certificate", Returns(ClientCertificate))
def get_certificate(webhook_id: str) -> Response:
    """Whom it names and until when it is valid; 404 where the webhook has none."""
    with services().pool.transaction() as conn:
        chain = client_certificates.chain_of(conn, account_id(), webhook_id)
        if chain is None:
            raise _not_there(conn, webhook_id)
        return success(_shown(chain))


@blueprint.delete("/<webhook_id>/client-certificate")
@operation("Remove a webhook's client certificate", Returns(DeletedWebhook))
def delete_certificate(webhook_id: str) -> Response:
    """In force within a second: receivers that ask for one then refuse deliveries."""
    with services().pool.transaction() as conn:
        locked_webhook(conn, webhook_id)
        removed = client_certificates.digest_of(conn, webhook_id)
        if not client_certificates.remove(conn, account_id(), webhook_id):
            raise _not_there(conn, webhook_id)
        record(conn, Action.CERTIFICATE_REMOVED, webhook_id, _replaced(removed, None))
        return success({"id": webhook_id, "deleted": True})


@blueprint.app_errorhandler(psycopg.errors.CheckViolation)
def refuse_http(error: psycopg.errors.CheckViolation) -> Response:
    """Turn a violated constraint into 409: a client certificate needs an https URL."""
    if error.diag.constraint_name != NEEDS_HTTPS:
        raise error
    message = "A client certificate needs an https URL: change the URL, or remove the certificate, first."
    return failure(409, "client_certificate_needs_https", message)


def _replaced(old: bytes | None, new: bytes | None) -> Changes:
    """Fingerprints for the audit log: the first digits of the digests."""
    before, after = (None if digest is None else digest.hex()[:8] for digest in (old, new))
    return {"clientCertificate": {"from": before, "to": after}}


def _shown(chain: str) -> ClientCertificate:
    own = describe(chain)
    return {
        "subject": own.subject,
        "issuer": own.issuer,
        "serialNumber": own.serial,
        "notBefore": iso(own.not_before),
        "notAfter": iso(own.not_after),
        "fingerprint": own.fingerprint,
    }


def _not_there(conn: Session, webhook_id: str) -> ApiError:
    """404 for the webhook, or else for its certificate."""
    own_webhook(conn, webhook_id)
    return ApiError(404, "client_certificate_not_found", "This webhook has no client certificate.")
