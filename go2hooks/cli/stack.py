"""How a command finds its servers: by the environment, or by the directory of a stack of `go2hooks up`."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from go2hooks.core.errors import UnavailableError

if TYPE_CHECKING:
    from go2hooks.postgres.session import Session
    from go2hooks.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])


def stack_option(function: F) -> F:
    """`--data-dir`, for commands that talk to servers."""
    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False),
        help="Use the servers of the stack that `go2hooks up --data-dir DIR` runs, not those of the environment.",
    )(function)


def read_endpoints(data_dir: Path) -> dict[str, Any]:
    """The endpoints.json of a running stack. Raises ClickException when none runs there."""
    path = data_dir / "endpoints.json"
    try:
        endpoints: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise click.ClickException(
            f"No stack is up in {data_dir}. Start one: go2hooks up --data-dir {data_dir}"
        ) from None
    except PermissionError:
        raise click.ClickException(
            f"{path} belongs to another user: run this as the one who started the stack."
        ) from None
    return endpoints


def find_settings(data_dir: Path | None) -> "Settings":
    """Settings of the environment, with the servers of the stack in `data_dir` if one is named.

    It uses the stack's encryption key, unless the environment sets keys, like `go2hooks up`.
    """
    from go2hooks.settings import load_settings
    from go2hooks.settings.environment import is_given

    if data_dir is None:
        return load_settings()
    endpoints = read_endpoints(data_dir)
    servers = {"kafka_bootstrap_servers": endpoints["kafka"], "database_url": endpoints["postgres"]}
    servers |= _security(data_dir)
    key = data_dir / "secret-key"
    if key.exists() and not is_given("secret_keys"):
        return load_settings(**servers, secret_keys=key.read_text(encoding="ascii"))
    return load_settings(**servers)


def _security(data_dir: Path) -> dict[str, Any]:
    """The Kafka settings of a stack of `go2hooks up --secure`; empty for another stack."""
    if not (data_dir / "security").exists():
        return {}
    from go2hooks.devstack.security import kept_security

    kept = kept_security(data_dir)
    return {} if kept is None else kept.client_settings()


@contextmanager
def connect_database(data_dir: Path | None) -> Iterator["Session"]:
    """A connection for one command. Raises errors with a remedy when Postgres is away, has no tables or denies access."""
    import psycopg

    from go2hooks.postgres.away import UNFIT, explain
    from go2hooks.postgres.session import Session

    url = find_settings(data_dir).database_url.get_secret_value()
    try:
        with Session.connect(url, name="cli", statement_timeout_s=0) as connection:
            yield connection
    except psycopg.errors.UndefinedTable as error:
        raise click.ClickException("The database has no tables yet: run `go2hooks migrate` first.") from error
    except UNFIT as error:
        raise click.ClickException(f"Postgres: {explain(error)}") from error
    except psycopg.OperationalError as error:
        raise UnavailableError(f"Postgres does not answer: {explain(error)}. Check GO2HOOKS_DATABASE_URL.") from error
