"""`go2hooks reconcile`: find deliveries that got lost, and send them again."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from go2hooks.cli.dead import read_moment
from go2hooks.cli.stack import connect_database, find_settings, stack_option


@click.command()
@click.option("--since", callback=read_moment, help="Events since then.  [default: as long as Kafka keeps them]")
@click.option(
    "--log",
    "through_log",
    is_flag=True,
    help="Read all of go2.deliveries and its overflow too, to find what left no record at all.",
)
@click.option("--send", is_flag=True, help="Send what is found again.")
@stack_option
def reconcile(since: datetime | None, through_log: bool, send: bool, data_dir: Path | None) -> None:  # noqa: FBT001
    """Find deliveries without a final record and without a message that waits.

    There should be none. Sending one again gives it its next attempt, at once; nothing is sent that was recorded
    meanwhile. Exit status 1 when some were found and not sent.
    """
    from go2hooks.orphans import Bounds, find_orphans, send_again

    settings = find_settings(data_dir)
    since = since or datetime.now(UTC) - timedelta(days=settings.log_retention_days)
    with connect_database(data_dir) as connection:
        bounds = Bounds(since, settings.stray_grace_s, page=100_000, limit=100_000)  # a page takes some 60 MB
        orphans = find_orphans(settings, connection, bounds, through_log=through_log)
    if not orphans:
        click.echo("Nothing got lost.")
        return
    shown = orphans[:50]
    for orphan in shown:
        due = f"{orphan.since:%Y-%m-%d %H:%M:%S}"
        click.echo(
            f"{orphan.delivery_id} to {orphan.webhook_id}: {orphan.state} after attempt {orphan.attempt}, due {due}"
        )
    if len(orphans) > len(shown):
        click.echo(f"… and {len(orphans) - len(shown)} more")
    if not send:
        least = "" if len(orphans) < bounds.limit else " or more"
        raise click.ClickException(f"{len(orphans)}{least} deliveries got lost. Send them again with --send.")
    gone = send_again(settings, orphans)
    click.echo(f"{len(orphans) - len(gone)} sent again.")
    if gone:
        raise click.ClickException(f"Kafka no longer has the payload of {len(gone)}: {', '.join(gone[:20])}")
    if len(orphans) >= bounds.limit:
        raise click.ClickException("There may be more: run it again.")
