"""What `go2hooks doctor` looks at, Kafka apart. Each check yields findings; one that cannot go on ends with a problem."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from go2hooks.core.errors import SealError, SettingsError, UnavailableError

if TYPE_CHECKING:
    from psycopg import Connection

    from go2hooks.postgres.secrets import Purpose, SecretBox
    from go2hooks.settings import Settings

TIMEOUT_S: Final = 5.0
SKEW_LIMIT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; with a remedy it is a problem."""

    subject: str
    detail: str
    remedy: str = ""


def check_postgres(settings: "Settings") -> Iterator[Finding]:
    """The database answers, is migrated, its secrets open, and its clock agrees with ours."""
    import psycopg

    url = settings.database_url.get_secret_value()
    try:
        with psycopg.connect(url, connect_timeout=int(TIMEOUT_S)) as connection:
            version = connection.info.server_version // 10000
            yield Finding("Postgres", f"{connection.info.host}:{connection.info.port} answers: version {version}")
            yield _check_clock(connection)
            migrations = _check_migrations(url)
            yield migrations
            if not migrations.remedy:
                yield _check_secrets(settings, connection)
    except psycopg.OperationalError as error:
        yield Finding(
            "Postgres", f"does not answer: {str(error).strip()}", "Start it, or correct GO2HOOKS_DATABASE_URL."
        )


def _check_clock(connection: "Connection[Any]") -> Finding:
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    there: datetime = row[0] if row else datetime.min.replace(tzinfo=UTC)
    skew_s = abs((there - datetime.now(UTC)).total_seconds())
    detail = f"differs from Postgres's by {skew_s:.2f} s"
    remedy = "" if skew_s <= SKEW_LIMIT_S else "Let NTP set both clocks: retries are due and signatures dated by them."
    return Finding("clock", detail, remedy)


def _check_migrations(url: str) -> Finding:
    from go2hooks.postgres.migrate import pending_migrations

    try:
        pending = pending_migrations(url)
    except UnavailableError as error:
        return Finding("migrations", str(error), "Start Postgres, or correct GO2HOOKS_DATABASE_URL.")
    if pending:
        return Finding("migrations", f"not applied: {', '.join(pending)}", "Run: go2hooks migrate")
    return Finding("migrations", "all are applied")


def _check_secrets(settings: "Settings", connection: "Connection[Any]") -> Finding:
    from go2hooks.postgres.secrets import Purpose, SecretBox

    try:
        box = SecretBox(settings.encryption_keys())
    except SettingsError as error:
        return Finding("secrets", str(error), "Set GO2HOOKS_SECRET_KEYS to the keys that the services use.")
    secrets = "SELECT id, sealed_secret FROM webhooks WHERE deleted_at IS NULL ORDER BY id"
    keys = "SELECT webhook_id, sealed_key FROM client_certificates ORDER BY webhook_id"
    sealed = [(*row, Purpose.SIGNING) for row in connection.execute(secrets)]
    sealed += [(*row, Purpose.CLIENT_KEY) for row in connection.execute(keys)]
    shut = [each for each in sealed if not _opens(box, *each)]
    if shut:
        detail = (
            f"{len(shut)} of {len(sealed)} webhook secrets and client keys do not open, the first that of {shut[0][0]}"
        )
        remedy = (
            "Add the key that sealed them to GO2HOOKS_SECRET_KEYS, or rotate these secrets and upload these keys again."
        )
        return Finding("secrets", detail, remedy)
    return Finding("secrets", f"all {len(sealed)} webhook secrets and client keys open")


def _opens(box: "SecretBox", webhook_id: str, sealed: bytes, purpose: "Purpose") -> bool:
    try:
        box.open(sealed, webhook_id, purpose)
    except SealError:
        return False
    return True


def check_schemas(settings: "Settings") -> Iterator[Finding]:
    """Every schema can be read, and each has a fingerprint of its own by which messages name it."""
    from go2hooks.codec import EventCodec

    try:
        known = EventCodec(settings.schema_dir).fingerprints
    except SettingsError as error:
        yield Finding("schemas", str(error), "Correct the file, or GO2HOOKS_SCHEMA_DIR.")
    else:
        yield Finding("schemas", f"{len(known)} are known by their fingerprints")
