"""The privileges that each service needs in Postgres: printed as GRANTs, and checked before a service is ready."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Final, NamedTuple

from psycopg import Connection, sql

MAINTAIN: Final = "attempts_maintain(date, integer, integer)"
FORGET: Final = "forget_old_changes(integer, interval)"
MAINTAIN_ROLLUPS: Final = "attempt_rollups_maintain(date, integer, integer)"


class Role(StrEnum):
    """The services that may have a login of their own; commands such as `migrate` and `keys` use that of the tables' owner."""

    API = "api"
    ROUTER = "router"
    REPLAYER = "replayer"
    DISPATCHER = "dispatcher"


class TableRight(NamedTuple):
    """Privileges on a table, all of its columns or some; EXECUTE on a function."""

    privileges: tuple[str, ...]
    thing: str
    columns: tuple[str, ...] = ()


_READ: Final = ("SELECT",)
# Row locks need UPDATE of any column.
_LOCK_ACCOUNTS: Final = TableRight(("UPDATE",), "accounts", ("created_at",))
_COUNTED: Final = (
    "consecutive_failures", "failure_starts", "failing_since", "is_active", "disabled_at", "disabled_reason",
)  # fmt: skip
_COMMON: Final = (TableRight(_READ, "alembic_version"), TableRight(_READ, "deployment"))
RIGHTS: Final[dict[Role, tuple[TableRight, ...]]] = {
    Role.API: (
        *_COMMON,
        TableRight(_READ, "accounts"),
        _LOCK_ACCOUNTS,
        TableRight(("SELECT", "INSERT"), "api_keys"),
        TableRight(("UPDATE",), "api_keys", ("last_used_at", "revoked_at")),
        TableRight(("SELECT", "INSERT"), "audit_log"),
        TableRight(("SELECT", "INSERT", "UPDATE"), "idempotent_answers"),
        TableRight(("SELECT", "INSERT", "UPDATE"), "webhooks"),
        TableRight(("SELECT", "INSERT", "UPDATE", "DELETE"), "client_certificates"),
        TableRight(("SELECT", "INSERT", "DELETE"), "attempts"),
        TableRight(("SELECT", "INSERT", "UPDATE", "DELETE"), "redeliveries"),
        TableRight(("SELECT", "INSERT"), "replays"),
        TableRight(("UPDATE",), "replays", ("status", "finished_at")),
        TableRight(_READ, "attempt_rollups"),
        TableRight(("SELECT", "DELETE"), "sign_in_links"),
    ),
    Role.ROUTER: (*_COMMON, TableRight(_READ, "webhooks")),
    Role.REPLAYER: (
        *_COMMON,
        TableRight(_READ, "webhooks"),
        TableRight(_READ, "attempts"),
        TableRight(("SELECT", "UPDATE", "DELETE"), "replays"),
        TableRight(("SELECT", "INSERT", "UPDATE", "DELETE"), "replay_batches"),
    ),
    Role.DISPATCHER: (
        *_COMMON,
        TableRight(_READ, "webhooks"),
        TableRight(("UPDATE",), "webhooks", _COUNTED),
        TableRight(_READ, "client_certificates"),
        TableRight(("SELECT", "INSERT"), "attempts"),
        TableRight(("INSERT",), "audit_log"),
        TableRight(("SELECT", "INSERT", "UPDATE", "DELETE"), "webhook_notices"),
        TableRight(("EXECUTE",), MAINTAIN),
        TableRight(("EXECUTE",), MAINTAIN_ROLLUPS),
        TableRight(("EXECUTE",), FORGET),
        TableRight(("SELECT", "INSERT", "DELETE"), "attempt_deltas"),
        TableRight(("SELECT", "INSERT", "UPDATE"), "attempt_rollups"),
        TableRight(
            ("TEMPORARY",), ""
        ),  # on the database: a batch with rows that are there already goes through such a table
    ),
}
_HELD: Final = {
    "table": "has_table_privilege(to_regclass({thing}), {privilege})",
    "column": "has_column_privilege(to_regclass({thing}), {column}, {privilege})",
    "function": "has_function_privilege(to_regprocedure({thing}), {privilege})",
    "database": "has_database_privilege(current_database(), {privilege})",
}


def missing_rights(connection: Connection[Any], role: Role) -> list[str]:
    """The privileges that this login lacks, such as `INSERT on attempts`; a missing table counts too. In a transaction."""
    asked = [each for right in RIGHTS[role] for each in _asked(right)]
    query = sql.SQL("SELECT {}").format(sql.SQL(", ").join(condition for _, condition in asked))
    row = connection.execute(query).fetchone() or ()
    return [name for (name, _), is_held in zip(asked, row, strict=True) if not is_held]


def _asked(right: TableRight) -> Iterator[tuple[str, sql.Composed]]:
    for privilege in right.privileges:
        for column in right.columns or ("",):
            kind = "column" if column else _kind(right)
            of = f" ({column})" if column else ""
            condition = sql.SQL(_HELD[kind]).format(
                thing=sql.Literal(right.thing), column=sql.Literal(column), privilege=sql.Literal(privilege)
            )
            yield f"{privilege}{of} on {right.thing or 'the database'}", condition


def _kind(right: TableRight) -> str:
    if not right.thing:
        return "database"
    return "function" if right.thing.endswith(")") else "table"


def grants(connection: Connection[Any], role: Role, login: str) -> Iterator[str]:
    """The GRANT statements for a service's login; the tables' owner may run them."""
    row = connection.execute("SELECT current_database(), current_schema()").fetchone()
    database, schema = map(sql.Identifier, row or ("", ""))
    to = sql.Identifier(login)
    yield sql.SQL("GRANT CONNECT ON DATABASE {} TO {};").format(database, to).as_string(connection)
    yield sql.SQL("GRANT USAGE ON SCHEMA {} TO {};").format(schema, to).as_string(connection)
    for right in RIGHTS[role]:
        columns = sql.SQL(f" ({', '.join(right.columns)})" if right.columns else "")
        what = sql.SQL(", ").join(sql.SQL(privilege) + columns for privilege in right.privileges)
        thing = {
            "database": sql.SQL("DATABASE {}").format(database),
            "function": sql.SQL("FUNCTION {}.").format(schema) + sql.SQL(right.thing),
            "table": sql.SQL("{}.").format(schema) + sql.SQL(right.thing),
        }[_kind(right)]
        yield sql.SQL("GRANT {} ON {} TO {};").format(what, thing, to).as_string(connection)
