"""`go2hooks keys`: API keys, each of one account."""

from pathlib import Path

import click

from go2hooks.cli.stack import connect_database, stack_option


@click.group()
def keys() -> None:
    """Make, list and revoke API keys."""


@keys.command()
@click.option("--account", required=True, help="Account that the key belongs to; made unless it is there.")
@click.option("--name", default="", help="What the key is for, to recognise it in the list.")
@stack_option
def create(account: str, name: str, data_dir: Path | None) -> None:
    """Make a key and print it. It is shown this once and stored only as a hash."""
    from go2hooks.postgres.api_keys import create_key

    with connect_database(data_dir) as connection:
        try:
            created = create_key(connection, account, name)
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
    table = Table("id", "account", "name", "created", "revoked")
    for key in found:
        revoked = f"{key.revoked_at:%Y-%m-%d %H:%M:%S}" if key.revoked_at else ""
        created = f"{key.created_at:%Y-%m-%d %H:%M:%S}"
        table.add_row(key.id, escape(key.account_id), escape(key.name), created, revoked)
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
