"""`go2hooks migrate` and `go2hooks topics`: bring Postgres and Kafka to what this version needs. Both may be repeated."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from go2hooks.cli.stack import find_settings, stack_option

if TYPE_CHECKING:
    from go2hooks.settings import Settings


@click.command()
@click.option(
    "--print-grants", is_flag=True, help="Change nothing: print the GRANTs that the login of each service needs."
)
@click.option("--role", default="go2_{service}", show_default=True, help="Whom the GRANTs are for.")
@stack_option
def migrate(data_dir: Path | None, role: str, *, print_grants: bool) -> None:
    """Bring the database to the newest version.

    Applies what is missing, in one transaction. Several may start it at once: one works, the others wait.
    """
    from go2hooks.postgres.migrate import migrate as apply
    from go2hooks.postgres.migrate import pending_migrations

    if print_grants:
        _print_grants(data_dir, role)
        return
    url = find_settings(data_dir).direct_url()
    pending = pending_migrations(url)
    apply(url)
    click.echo(f"Applied: {', '.join(pending)}" if pending else "The database is up to date.")


def _print_grants(data_dir: Path | None, role: str) -> None:
    from go2hooks.cli.stack import connect_database
    from go2hooks.postgres.rights import Role, grants

    with connect_database(data_dir) as connection, connection.transaction():
        for service in Role:
            lines = grants(connection, service, role.replace("{service}", str(service)))
            click.echo("\n".join([f"-- {service}", *lines]))


@click.group(invoke_without_command=True)
@click.option(
    "--check", is_flag=True, help="Change nothing: say what is missing or differs; exit status 1 if anything."
)
@click.option("--print", "commands", is_flag=True, help="Change nothing: print the kafka-topics commands.")
@stack_option
@click.pass_context
def topics(context: click.Context, data_dir: Path | None, *, check: bool, commands: bool) -> None:
    """Create and reconcile the Kafka topics.

    Creates what is missing, adds partitions, sets retention. Never deletes a topic, never removes partitions.
    """
    from go2hooks.kafka.admin import as_commands, find_differences

    context.obj = data_dir
    if context.invoked_subcommand is not None:
        return
    settings = find_settings(data_dir)
    if commands:
        click.echo("\n".join(as_commands(settings)))
    elif check:
        differences = find_differences(settings)
        for line in differences:
            click.echo(line)
        if differences:
            raise click.ClickException(f"{len(differences)} difference(s). To mend them: go2hooks topics")
        click.echo("The topics are as they should be.")
    else:
        _reconcile(settings)


@topics.command()
@click.option("--principal", default="User:go2-{service}", show_default=True, help="Whom the commands allow it.")
@stack_option
@click.pass_obj
def acls(outer: Path | None, principal: str, data_dir: Path | None) -> None:
    """Print what each service must be allowed, and nothing else: a table, then kafka-acls commands."""
    from rich.console import Console
    from rich.table import Table

    from go2hooks.kafka.rights import Principal, as_commands, rights

    settings = find_settings(data_dir or outer)
    table = Table("service", "operation", "resource", box=None, pad_edge=False)
    for service in Principal:
        for right in rights(settings, service):
            name = f"{right.name}*" if right.is_prefix else right.name
            table.add_row(str(service), right.operation.value, f"{right.resource} {name}")
    Console(highlight=False).print(table)
    for service in Principal:
        who = principal.replace("{service}", str(service))
        click.echo("\n".join(["", *as_commands(rights(settings, service), who, settings.kafka_bootstrap_servers)]))


@topics.command()
@click.option("--yes", is_flag=True, help="Do it; without this, only say what would be done.")
@stack_option
@click.pass_obj
def adopt(outer: Path | None, data_dir: Path | None, *, yes: bool) -> None:
    """Make the topics this database's, when it replaces the one that they belong to.

    Stop the services of the other deployment first: its deliveries are then taken for this one's.
    """
    from go2hooks.cli.stack import connect_database
    from go2hooks.kafka.deployment import adopt as take_over
    from go2hooks.kafka.deployment import read_claims
    from go2hooks.postgres.deployment import find_deployment

    settings = find_settings(data_dir or outer)
    with connect_database(data_dir or outer) as connection, connection.transaction():
        ours = find_deployment(connection)
    owner = read_claims(settings).owner
    if owner == ours:
        click.echo(f"The topics are this deployment's already: {ours}.")
    elif yes:
        take_over(settings, ours)
        click.echo(f"The topics were {owner or 'nobody'}'s and are {ours}'s now.")
    else:
        click.echo(f"The topics are {owner or 'nobody'}'s and would be {ours}'s. Add --yes to do it.")


def _reconcile(settings: "Settings") -> None:
    from go2hooks.kafka.admin import ensure_topics

    changes = ensure_topics(settings)
    done = (("Created", changes.created), ("Added partitions to", changes.grown), ("Configured", changes.configured))
    for verb, names in done:
        if names:
            click.echo(f"{verb}: {', '.join(sorted(names))}")
    if not any(names for _, names in done):
        click.echo("The topics are as they should be.")
