"""What a running stack tells its users: addresses of its servers, an API key, and a link that signs in to the dashboard."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import psycopg

from go2hooks.core.security.addresses import is_loopback
from go2hooks.devstack.data_dir import DataDir
from go2hooks.devstack.service import ServiceProcess
from go2hooks.postgres import sign_in_links
from go2hooks.postgres.api_keys import CreatedKey, create_key, list_keys
from go2hooks.postgres.session import Session
from go2hooks.settings import Settings

ACCOUNT: Final = "local"


def describe(
    settings: Settings,
    key: CreatedKey,
    services: Mapping[str, Sequence[ServiceProcess]],
    kafka_pids: Sequence[int | None],
    postgres_pid: int | None,
) -> dict[str, Any]:
    """What `endpoints.json` holds. The pids of servers that are not ours are None."""
    api = services["api"][0].url
    metrics = {name: [f"{service.url}/metrics" for service in group] for name, group in services.items()}
    pids: dict[str, Any] = {name: [service.pid for service in group] for name, group in services.items()}
    kafka = kafka_pids if len(kafka_pids) > 1 else next(iter(kafka_pids), None)
    return {
        "api": f"{api}/api/v1",
        "apiKey": key.key,
        "account": ACCOUNT,
        "kafka": settings.kafka_bootstrap_servers,
        "postgres": settings.database_url.get_secret_value(),
        "dashboard": f"{api}/",
        "metrics": metrics | {"api": metrics["api"][0]},
        "pids": {"kafka": kafka, "postgres": postgres_pid, **pids, "api": pids["api"][0]},
    }


def sign_in_link(settings: Settings, api_url: str, key: CreatedKey) -> str | None:
    """An address that signs in to the dashboard once, as this key; None where there can be none.

    It is shown in the terminal and written nowhere: programs have the key.
    """
    if not is_loopback(settings.api_host):
        return None
    try:
        with Session.connect(settings.database_url.get_secret_value(), name="up") as connection:
            token = sign_in_links.make(connection, key.id)
            connection.commit()
    except psycopg.OperationalError:  # Postgres has just died: it is restarted, and the endpoints are announced again
        return None
    return f"{api_url}/sign-in/link?token={token}"


def ensure_api_key(connection: psycopg.Connection[Any], data_dir: DataDir) -> CreatedKey:
    """The key for endpoints.json: the stored one while the database accepts it, otherwise a new one."""
    kept = data_dir.read_json("api-key.json")
    usable = {key.id for key in list_keys(connection, ACCOUNT) if key.revoked_at is None}
    if kept is None or kept["id"] not in usable:
        created = create_key(connection, ACCOUNT, "go2hooks up")
        connection.commit()
        kept = created._asdict()
        data_dir.write_json("api-key.json", kept)
    return CreatedKey(**kept)
