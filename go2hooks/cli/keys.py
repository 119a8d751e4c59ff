"""`go2hooks keys`: API keys, each of one account."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import click

from go2hooks.cli.stack import connect_database, stack_option

_LONGEST_S: Final = 3650 * 86400


def _read_duration(_context: click.Context, _option: click.Parameter, text: str | None) -> timedelta | None:
    """`12h`, `30d`, up to ten years."""
    from go2hooks.settings import parse_duration_s

    if text is None:
        return None
    try:
        seconds = parse_duration_s(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if not 0 < seconds <= _LONGEST_S:
        raise click.BadParameter("must be longer than 0 and at most 3650d")
    return timedelta(seconds=seconds)


@click.group()
def keys() -> None:
    """Make, list and revoke API keys."""


@keys.command()
@click.option("--account", required=True, help="Account that the key belongs to; made unless it is there.")
@click.option("--name", default="", help="What the key is for, to recognise it in the list.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(["read", "write", "admin"]),
    help="What it may do: read; write, which includes read; admin, which also manages keys. All of them unless given.",
)
@click.option(
    "--expires-in",
    callback=_read_duration,
    help="Until when it is good, from now, such as 12h or 30d. For ever unless given.",
)
@stack_option
def create(
    account: str, name: str, scopes: tuple[str, ...], expires_in: timedelta | None, data_dir: Path | None
) -> None:
    """Make a key and print it. It is shown this once and stored only as a hash."""
    from go2hooks.postgres.api_keys import ALL_SCOPES, Scope, create_key

    wanted = tuple(map(Scope, dict.fromkeys(scopes))) or ALL_SCOPES
    expires_at = None if expires_in is None else datetime.now(UTC) + expires_in
    with connect_database(data_dir) as connection:
        try:
            created = create_key(connection, account, name, wanted, expires_at)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--account") from error
    click.echo(f"Key {created.id} of account {account}. Keep it safe, it is not shown again:", err=True)
    click.echo(created.key)


@keys.command("list")
@click.option("--account", help="Only this account's keys.")
@stack_option
def list_(account: str | None, data_dir: Path | None) -> None:
    """List keys, revoked ones too, without the keys themselves."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from go2hooks.postgres.api_keys import list_keys

    with connect_database(data_dir) as connection:
        found = list_keys(connection, account)
    table = Table("id", "account", "name", "scopes", "created", "expires", "last used", "revoked")
    for key in found:
        times = (key.created_at, key.expires_at, key.last_used_at, key.revoked_at)
        told = (key.id, escape(key.account_id), escape(key.name), " ".join(key.scopes))
        table.add_row(*told, *(f"{at:%Y-%m-%d %H:%M:%S}" if at else "" for at in times))
    Console().print(table)


@keys.command()
@click.argument("key_id")
@stack_option
def revoke(key_id: str, data_dir: Path | None) -> None:
    """Revoke the key with this id (key_…): from now on it opens nothing."""
    from go2hooks.postgres.api_keys import revoke_key

    with connect_database(data_dir) as connection:
        revoked = revoke_key(connection, key_id)
    if not revoked:
        raise click.ClickException(f"There is no key {key_id}, or it was revoked before. See: go2hooks keys list")
    click.echo(f"Revoked {key_id}.")
