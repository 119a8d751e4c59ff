"""`go2hooks api`, `router`, `replayer`, `dispatcher`: each command executes the service in this process."""

import importlib.util
import os
import sys

import click


def _become(module: str, needed: tuple[str, ...], *arguments: str) -> None:
    """Replace this process, so that signals reach the service, and its exit status is ours."""
    for package in needed:
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *arguments])  # noqa: S606  # our own module


@click.command()
def api() -> None:
    """Run the control API.

    Listens on GO2HOOKS_API_HOST and GO2HOOKS_API_PORT; /metrics, /healthz and /readyz are there too.
    """
    _become("services.api", ("flask", "waitress"))


@click.command()
def router() -> None:
    """Run a router: it turns events into one delivery per matching webhook.

    Run several to share the partitions. /metrics, /healthz and /readyz are on GO2HOOKS_METRICS_PORT.
    """
    _become("services.router", ())


@click.command()
def replayer() -> None:
    """Run a replayer: it sends again what accounts ask for, from the log.

    One is enough; with several, one goes on where another has died. /metrics, /healthz and /readyz are on GO2HOOKS_METRICS_PORT.
    """
    _become("services.router.replay", ())


@click.command()
@click.option(
    "--processes",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Processes on this machine, one core each.",
)
def dispatcher(processes: int) -> None:
    """Run a dispatcher: it signs, sends, retries and records deliveries.

    Run several, here or on other machines, to share the partitions. One endpoint serves them all: /metrics, /healthz and /readyz are on GO2HOOKS_METRICS_PORT.
    """
    _become("services.dispatcher", ("aiohttp", "httptools"), "--processes", str(processes))
