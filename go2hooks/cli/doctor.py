"""`go2hooks doctor`."""

from pathlib import Path

import click

from go2hooks.cli.stack import find_settings, stack_option


@click.command()
@click.option(
    "--service",
    type=click.Choice(["producer", "router", "replayer", "dispatcher", "api", "operator"]),
    help="Check Kafka and Postgres as this service, with its login: what it lacks is a problem.",
)
@stack_option
def doctor(service: str | None, data_dir: Path | None) -> None:
    """Check Kafka, Postgres, keys, schemas, clocks and the egress proxy; say what is wrong and what to do about it.

    Exit status 1 when there is a problem.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from go2hooks.cli.checks import check_postgres, check_schemas
    from go2hooks.cli.egress_check import check_egress_proxy
    from go2hooks.cli.kafka_checks import check_kafka, check_owner

    settings = find_settings(data_dir)
    findings = [
        *check_kafka(settings, service),
        *check_postgres(settings, service),
        *check_owner(settings),
        *check_schemas(settings),
        *check_egress_proxy(settings),
    ]
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in findings:
        mark = "[bold red]✗[/]" if finding.remedy else "[green]✓[/]"
        said = f"{finding.detail}\n→ {finding.remedy}" if finding.remedy else finding.detail
        table.add_row(mark, finding.subject, escape(said))  # they contain messages of servers
    Console(highlight=False).print(table)
    problems = sum(bool(finding.remedy) for finding in findings)
    if problems:
        raise click.ClickException(f"{problems} problem(s) found.")
