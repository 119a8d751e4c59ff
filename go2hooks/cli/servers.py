"""`go2hooks migrate` and `go2hooks topics`: bring Postgres and Kafka to what this version needs. Both may be repeated."""

from pathlib import Path

import click

from go2hooks.cli.stack import find_settings, stack_option


@click.command()
@stack_option
def migrate(data_dir: Path | None) -> None:
    """Bring the database to the newest version.

    Applies what is missing, in one transaction. Several may start it at once: one works, the others wait.
    """
    from go2hooks.postgres.migrate import migrate as apply
    from go2hooks.postgres.migrate import pending_migrations

    url = find_settings(data_dir).database_url.get_secret_value()
    pending = pending_migrations(url)
    apply(url)
    click.echo(f"Applied: {', '.join(pending)}" if pending else "The database is up to date.")


@click.command()
@stack_option
def topics(data_dir: Path | None) -> None:
    """Create and reconcile the Kafka topics.

    Creates what is missing, adds partitions, sets retention. Never deletes a topic, never removes partitions.
    """
    from go2hooks.kafka.admin import ensure_topics

    changes = ensure_topics(find_settings(data_dir))
    done = (("Created", changes.created), ("Added partitions to", changes.grown), ("Configured", changes.configured))
    for verb, names in done:
        if names:
            click.echo(f"{verb}: {', '.join(sorted(names))}")
    if not any(names for _, names in done):
        click.echo("The topics are as they should be.")
