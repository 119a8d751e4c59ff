"""`go2hooks up`."""

from pathlib import Path
from typing import Any

import click


@click.command()
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".data"),
    show_default=True,
    help="Where Kafka, Postgres, keys and logs live; kept between starts.",
)
@click.option("--api-port", type=click.IntRange(1, 65535), help="Port of the API.  [default: a free one, kept]")
@click.option(
    "--brokers",
    type=click.IntRange(1, 9),
    help="Kafka brokers; with 3, any one may die.  [default: those of the directory, 1 in a new one]",
)
@click.option("--secure", is_flag=True, help="Have Kafka ask for TLS and a password (SASL_SSL); for a new directory.")
@click.option("--dispatchers", type=click.IntRange(1, 64), default=1, show_default=True, help="Dispatcher processes.")
def up(
    data_dir: Path,
    api_port: int | None,
    brokers: int | None,
    secure: bool,  # noqa: FBT001  # click's flag
    dispatchers: int,
) -> None:
    """Run the whole system in the foreground, until Ctrl-C.

    Starts Kafka, Postgres, the API, a router and dispatchers, restarts what dies, and writes DIR/endpoints.json
    whenever all are ready. GO2HOOKS_KAFKA_BOOTSTRAP_SERVERS and GO2HOOKS_DATABASE_URL point it at servers that
    exist; then it starts none of that kind. Logs are in DIR/logs.

    With --brokers 3 every topic is replicated, so that failures can be tried: kill one of "pids"."kafka" and watch.
    A directory keeps the number of brokers that it was made with. With --secure brokers speak SASL_SSL, with a CA, a
    user and a password of the directory's own (DIR/security); commands find them by --data-dir.
    """
    from rich.console import Console

    from go2hooks.devstack.supervisor import StackOptions, run_stack

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    options = StackOptions(
        data_dir=data_dir, api_port=api_port, brokers=brokers, secure=secure, dispatchers=dispatchers
    )

    def on_ready(endpoints: dict[str, Any], sign_in_link: str | None) -> None:
        _announce(console, endpoints, sign_in_link, data_dir)

    with console.status("Starting …"):
        run_stack(options, lambda line: console.print(line, markup=False), on_ready)


def _announce(console: Any, endpoints: dict[str, Any], sign_in_link: str | None, data_dir: Path) -> None:
    console.print(f"[bold green]All ready.[/] API {endpoints['api']}")
    where = data_dir / "endpoints.json"
    console.print(f"Addresses, API key and process ids: {where} · Ctrl-C stops everything.", markup=False)
    if sign_in_link is None:
        console.print(f"Dashboard: {endpoints['dashboard']} (sign in with that API key)", markup=False)
    else:
        console.print(
            f"Dashboard: {endpoints['dashboard']} · this link signs you in, once, within 5 minutes:", markup=False
        )
        console.print(f"  {sign_in_link}", markup=False)
