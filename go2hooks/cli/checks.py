"""The checks of `go2hooks doctor`, except for Kafka. Each yields findings; one that cannot go on ends with a problem."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from go2hooks.core.errors import SealError, SettingsError, UnavailableError
from go2hooks.settings.environment import given_variable, variable

if TYPE_CHECKING:
    from psycopg import Connection

    from go2hooks.postgres.secrets import Purpose, SecretBox
    from go2hooks.postgres.session import Session
    from go2hooks.settings import Settings

TIMEOUT_S: Final = 5.0
SKEW_LIMIT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. A finding with a remedy is a problem."""

    subject: str
    detail: str
    remedy: str = ""


def check_postgres(settings: "Settings", service: str | None = None) -> Iterator[Finding]:
    """Check each database: connection, migrations, privileges, secrets and clock."""
    yield from _check_connection(settings, "database_url", settings.database_url.get_secret_value(), service)
    if settings.database_direct_url is not None:
        yield from _check_connection(settings, "database_direct_url", settings.direct_url(), service)
        yield from _check_that_both_are_one(settings)


def _check_connection(settings: "Settings", name: str, url: str, service: str | None) -> Iterator[Finding]:
    import psycopg

    from go2hooks.postgres.away import explain
    from go2hooks.postgres.session import Session, is_pooled

    wrong = given_variable(name)
    try:
        with Session.connect(url, name="doctor") as session, session.transaction():
            version = session.info.server_version // 10000
            yield Finding("Postgres", f"{session.info.host}:{session.info.port} answers: version {version}")
            if is_pooled(session):
                yield _pooler_found(settings, name)
            if session.execute("SELECT current_schema()").fetchone() == (None,):
                remedy = f"Create it, grant USAGE on it, or correct the search_path in {wrong}."
                yield Finding("Postgres", "no schema of the search_path is there for this login", remedy)
                return
            if name != "database_url":
                return
            yield _check_clock(session)
            migrations = _check_migrations(settings.direct_url(), wrong)
            yield migrations
            if not migrations.remedy:
                yield from _check_rights(session, service)
                if service in (None, "api", "dispatcher"):
                    yield _check_secrets(settings, session)
    except SettingsError as error:
        yield Finding("Postgres", str(error), f"Correct {wrong}.")
    except psycopg.OperationalError as error:
        why = explain(error)
        yield Finding("Postgres", f"does not answer: {why}", _remedy(why).format(wrong))
    except psycopg.Error as error:
        yield Finding("Postgres", explain(error), f"Grant it, or correct {wrong}.")


def _check_that_both_are_one(settings: "Settings") -> Iterator[Finding]:
    """No finding when one of them does not answer or is not migrated: other checks report that."""
    import psycopg

    from go2hooks.core.errors import Go2HooksError
    from go2hooks.postgres.deployment import find_deployment
    from go2hooks.postgres.session import Session

    found = set()
    for url in (settings.database_url.get_secret_value(), settings.direct_url()):
        try:
            with Session.connect(url, name="doctor") as session, session.transaction():
                found.add(find_deployment(session))
        except (psycopg.Error, Go2HooksError):
            return
    if len(found) > 1:
        names = f"{variable('database_url')} and {variable('database_direct_url')}"
        yield Finding("Postgres", f"{names} lead to two databases", "Name the same database in both.")


_REMEDIES: Final = (
    (r"password|role .* does not exist|SASL|authentication", "Correct user and password in {}."),
    (r"database .* does not exist|no such database", "Create it, or correct the name of the database in {}."),
    (r"pg_hba|SSL|certificate", "Correct sslmode, sslrootcert or the user in {}, or let pg_hba.conf permit it."),
    (r"translate host name|resolve", "Correct the host in {}."),
    (r"slots|too many|no more connections", "Raise max_connections, or put a pooler in between."),
)


def _remedy(why: str) -> str:
    found = (remedy for pattern, remedy in _REMEDIES if re.search(pattern, why, re.IGNORECASE))
    return next(found, "Start it, or correct host and port in {}.")


def _pooler_found(settings: "Settings", name: str) -> Finding:
    direct = variable("database_direct_url")
    if name == "database_direct_url":
        return Finding("pooler", f"{direct} leads to a pooler", "Name Postgres itself, or leave it out.")
    if settings.database_direct_url is not None:
        return Finding("pooler", f"one stands in between; changes of webhooks are told past it, by {direct}")
    looked = f"changes of webhooks are looked for every {settings.reconcile_interval_ms} ms"
    return Finding("pooler", f"one stands in between: {looked}; with {direct}, past it, they are told at once")


def _check_rights(session: "Session", asked: str | None) -> Iterator[Finding]:
    """Check the privileges of this login. Each service may have its own login."""
    from go2hooks.postgres.away import GRANTS
    from go2hooks.postgres.rights import Role, missing_rights

    missing = {role: missing_rights(session, role) for role in Role}
    if asked is None:
        able = ", ".join(role for role in Role if not missing[role]) or "none of the services"
        yield Finding("Postgres rights", f"this login may do all that {able} does")
    elif asked in missing:
        lacks = ", ".join(missing[Role(asked)])
        remedy = f"Grant it: {GRANTS}." if lacks else ""
        yield Finding(
            "Postgres rights", f"the {asked} lacks {lacks}" if lacks else f"the {asked} has all it needs", remedy
        )


def _check_clock(connection: "Connection[Any]") -> Finding:
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    there: datetime = row[0] if row else datetime.min.replace(tzinfo=UTC)
    skew_s = abs((there - datetime.now(UTC)).total_seconds())
    detail = f"differs from Postgres's by {skew_s:.2f} s"
    remedy = "" if skew_s <= SKEW_LIMIT_S else "Let NTP set both clocks: retries are due and signatures dated by them."
    return Finding("clock", detail, remedy)


def _check_migrations(url: str, wrong: str) -> Finding:
    from go2hooks.postgres.migrate import pending_migrations

    try:
        pending = pending_migrations(url)
    except UnavailableError as error:
        return Finding("migrations", str(error), f"Start Postgres, or correct {wrong}.")
    if pending:
        return Finding("migrations", f"not applied: {', '.join(pending)}", "Run: go2hooks migrate")
    return Finding("migrations", "all are applied")


def _check_secrets(settings: "Settings", connection: "Connection[Any]") -> Finding:
    from go2hooks.postgres.key_rotation import all_sealed
    from go2hooks.postgres.secrets import SecretBox

    try:
        box = SecretBox(settings.encryption_keys())
    except SettingsError as error:
        return Finding("secrets", str(error), "Set GO2HOOKS_SECRET_KEYS to the keys that the services use.")
    sealed = all_sealed(connection)
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
    """Check that every schema can be read and has a fingerprint of its own."""
    from go2hooks.codec import EventCodec

    try:
        known = EventCodec(settings.schema_dir).fingerprints
    except SettingsError as error:
        yield Finding("schemas", str(error), "Correct the file, or GO2HOOKS_SCHEMA_DIR.")
    else:
        yield Finding("schemas", f"{len(known)} are known by their fingerprints")
