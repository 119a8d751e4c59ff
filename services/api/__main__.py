"""`python -m services.api`: build the adapters, serve until SIGTERM, drain, exit 0."""

import sys
from functools import cache, partial

import structlog

from go2hooks.core.errors import SettingsError
from go2hooks.kafka.payloads import KafkaPayloadReader
from go2hooks.postgres.deployment import find_deployment
from go2hooks.postgres.pool import Pool, open_pool
from go2hooks.postgres.secrets import SecretBox
from go2hooks.runtime import Shutdown
from go2hooks.settings import Settings, load_settings
from go2hooks.telemetry import logs
from go2hooks.telemetry.health import announce_port
from services.api.app import create_app
from services.api.operating import Operating
from services.api.outbox import KafkaDeliveryWriter
from services.api.server import ApiServer, bind


def main() -> int:
    try:
        settings = load_settings()
        logs.configure(settings, "api")
        serve(settings)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises SettingsError for a missing key, a port that is taken, a database that is of no use."""
    shutdown = Shutdown(settings.drain_timeout_s).install()
    secret_box = SecretBox(settings.encryption_keys())
    listener = bind(settings.api_host, settings.api_port)
    log = structlog.get_logger("services.api")
    with open_pool(settings, service="api", max_size=2 * settings.api_threads) as pool:
        unusable = pool.try_connecting()
        if isinstance(unusable, SettingsError):
            raise unusable
        writer = KafkaDeliveryWriter(settings, cache(partial(_deployment, pool)))
        reader = KafkaPayloadReader(settings)
        operating = Operating(settings, pool) if settings.operators_account is not None else None
        server = ApiServer(create_app(settings, pool, secret_box, writer, reader, operating), listener, settings)
        announce_port(server.port)
        log.info("listening", host=settings.api_host, port=server.port)
        server.serve(shutdown)
        writer.close(2.0)
        reader.close()
        if operating is not None:
            operating.close()
    log.info("drained")


def _deployment(pool: Pool) -> str:
    with pool.transaction() as connection:
        return find_deployment(connection)


if __name__ == "__main__":
    sys.exit(main())
