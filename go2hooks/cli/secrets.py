"""`go2hooks secrets`: the keys that encrypt webhook secrets at rest."""

from pathlib import Path

import click

from go2hooks.cli.stack import connect_database, find_settings, stack_option


@click.group()
def secrets() -> None:
    """Look after the keys that encrypt webhook secrets at rest."""


@secrets.command()
@click.option(
    "--batch", type=click.IntRange(1, 10_000), default=500, show_default=True, help="Webhooks per transaction."
)
@stack_option
def rotate(batch: int, data_dir: Path | None) -> None:
    """Seal every webhook's secrets, and its client certificate's key, anew with the first of GO2HOOKS_SECRET_KEYS.

    Nothing stops meanwhile, and receivers notice nothing: the secrets stay, only their encryption changes. To change the
    key: (1) append the new key to GO2HOOKS_SECRET_KEYS everywhere and restart; (2) put it first everywhere and restart;
    (3) run this; (4) once it says that nothing needs the older keys, take them out. It may be cut short and run again.

    Exit status 1 when some webhooks still need an older key.
    """
    from go2hooks.postgres.key_rotation import reseal_all
    from go2hooks.postgres.secrets import SecretBox

    box = SecretBox(find_settings(data_dir).encryption_keys())
    with connect_database(data_dir) as connection:
        done = reseal_all(connection, box, batch)
    click.echo(f"{done.resealed} webhooks sealed anew, {done.current} were already.")
    if done.shut:
        shown = ", ".join(done.shut[:5]) + (", …" if len(done.shut) > 5 else "")  # noqa: PLR2004  # enough to begin with
        raise click.ClickException(
            f"{len(done.shut)} are sealed with a key that GO2HOOKS_SECRET_KEYS does not name: {shown}. "
            "Add that key at the end and run this again; or rotate these webhooks' secrets (or upload their certificates again), "
            "and run this again once GO2HOOKS_SECRET_OVERLAP_S is over, after which what they replaced is forgotten."
        )
    if not done.is_complete:
        raise click.ClickException(f"{done.changed} were changed meanwhile. Run this again.")
    click.echo("Nothing needs the older keys any more.")
