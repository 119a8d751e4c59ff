"""Client certificates as a customer uploads them."""

from typing import Any

import trustme


def issued(authority: trustme.CA, name: str, **options: Any) -> dict[str, str]:
    """The body of an upload."""
    leaf = authority.issue_cert(name, **options)
    chain = "".join(part.bytes().decode() for part in leaf.cert_chain_pems)
    return {"certificate": chain, "privateKey": leaf.private_key_pem.bytes().decode()}


def path_of(webhook: dict[str, Any]) -> str:
    return f"/webhooks/{webhook['id']}/client-certificate"
