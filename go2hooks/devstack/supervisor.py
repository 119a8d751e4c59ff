"""`go2hooks up`: Kafka, Postgres and our services as children, watched until we are told to stop."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from go2hooks import __version__
from go2hooks.build import BUILD
from go2hooks.devstack import endpoints
from go2hooks.devstack.broker import Broker, brokers_of
from go2hooks.devstack.data_dir import DataDir
from go2hooks.devstack.database import Database
from go2hooks.devstack.errors import StackError, explain_os_error
from go2hooks.devstack.processes import free_port, port_is_free
from go2hooks.devstack.quorum import open_quorum
from go2hooks.devstack.security import Security, kept_security, secure
from go2hooks.devstack.server import Server
from go2hooks.devstack.service import ServiceProcess
from go2hooks.devstack.watch import Watch
from go2hooks.kafka.admin import ensure_topics
from go2hooks.postgres.api_keys import CreatedKey
from go2hooks.postgres.migrate import migrate
from go2hooks.postgres.session import Session
from go2hooks.settings import Settings, load_settings
from go2hooks.settings.environment import is_given, variable

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class StackOptions:
    """Options of `go2hooks up`. None keeps the directory's value; a new directory gets a free `api_port` and one broker."""

    data_dir: Path
    api_port: int | None = None
    brokers: int | None = None
    secure: bool = False  #: a directory that is secure stays so
    dispatchers: int = 1


def run_stack(options: StackOptions, report: Report, on_ready: Callable[[dict[str, Any], str | None], None]) -> None:
    """Run until SIGINT or SIGTERM; `on_ready` gets the endpoints whenever they change, and a new sign-in link. Main thread only.

    Raises StackError, SettingsError or UnavailableError when it cannot start; all children are ended by then.
    """
    with opened_stack(options, report) as stack:
        try:
            stack.start()
            while True:
                if (announced := stack.step(time.monotonic())) is not None:
                    on_ready(announced, stack.sign_in_link())
                time.sleep(0.1)
        except KeyboardInterrupt:
            report("Stopping: services first, then Kafka and Postgres. Press Ctrl-C again to hurry.")


@contextmanager
def opened_stack(options: StackOptions, report: Report) -> Iterator["Stack"]:
    """A stack to `start` and `step` inside the block, and stopped after it; SIGTERM raises KeyboardInterrupt there.

    Main thread only. Raises StackError when the directory is in use, cannot be written, or is on a full disk.
    """
    data_dir = DataDir.open(options.data_dir)
    try:
        with _sigterm_interrupts():
            stack = Stack(data_dir, options, report)
            try:
                yield stack
            finally:
                stack.stop()
    except OSError as error:
        raise explain_os_error(error, data_dir.path) from error
    finally:
        data_dir.close()


class Stack:
    """The children in one data directory, in the order in which they start."""

    def __init__(self, data_dir: DataDir, options: StackOptions, report: Report) -> None:
        self.report = report
        self._dir = data_dir
        self._options = options
        # A server whose address the operator has set is not started here.
        kafka_given, postgres_given = is_given("kafka_bootstrap_servers"), is_given("database_url")
        if kafka_given and (options.brokers is not None or options.secure):
            said = "--secure" if options.secure else "--brokers"
            raise StackError(f"GO2HOOKS_KAFKA_BOOTSTRAP_SERVERS names brokers that exist: leave it or {said} out.")
        self._kafka_given = kafka_given
        self._brokers: list[Broker] = []
        self._security: Security | None = None
        self._database = None if postgres_given else Database(data_dir.path / "postgres", log=data_dir.log("postgres"))
        self._given: dict[str, str] = {}  # variables for our services, beside those of the environment
        self._services: dict[str, list[ServiceProcess]] = {}
        self._watches: list[Watch] = []
        self._announced: dict[str, Any] | None = None
        self._api_key = CreatedKey("", "")

    def start(self) -> None:
        """Start everything and wait until it serves. A process that dies meanwhile is an error; it is not restarted."""
        self.report(f"go2hooks {__version__}, {BUILD}.")
        self._dir.endpoints.unlink(missing_ok=True)
        self._check_api_port()
        for name in self._dir.end_leftovers():
            self.report(f"Ended {name}, left behind by a stack that was killed.")
        if not self._kafka_given:
            self._security = secure(self._dir.path) if self._options.secure else kept_security(self._dir.path)
            quorum = open_quorum(self._dir.path / "kafka", self._options.brokers)
            self._brokers = brokers_of(quorum, self._dir.log, self._security)
        self._start_all([*([] if self._database is None else [self._database]), *self._brokers])
        self._settings = self._configure()
        self._prepare(self._settings)
        self._services = self._build_services(self._settings)
        self._start_all([service for group in self._services.values() for service in group])

    def step(self, now: float) -> dict[str, Any] | None:
        """Check every child once. Returns the endpoints when all are ready and something has changed."""
        stepped = [watch.step(now) for watch in self._watches]
        if any(stepped):
            self._record()
        if not all(watch.ready for watch in self._watches):
            return None
        kafka = [broker.pid for broker in self._brokers]
        postgres = None if self._database is None else self._database.pid
        described = endpoints.describe(self._settings, self._api_key, self._services, kafka, postgres)
        if described == self._announced:
            return None
        self._dir.write_json("endpoints.json", described)
        self._announced = described
        return described

    def sign_in_link(self) -> str | None:
        return endpoints.sign_in_link(self._settings, self._services["api"][0].url, self._api_key)

    def stop(self) -> None:
        """Services drain in parallel, then Kafka and Postgres stop. A second interrupt kills what is left."""
        self._dir.endpoints.unlink(missing_ok=True)
        services = [watch.server for watch in self._watches if isinstance(watch.server, ServiceProcess)]
        servers = [watch.server for watch in self._watches if not isinstance(watch.server, ServiceProcess)]
        try:
            _stop_together(services)
            _stop_together(servers)
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            self.report("Hurrying: what is left is killed.")
        for server in (*services, *servers):
            server.wait_stopped(timeout_s=0.0)
        self._record()

    def _start_all(self, servers: Sequence[Server]) -> None:
        watches = [Watch(server, self.report) for server in servers]
        self._watches += watches
        for server in servers:
            server.start()
            self._record()
        for watch in watches:
            watch.server.wait_ready()
            watch.step(time.monotonic())

    def _record(self) -> None:
        running = [watch.server for watch in self._watches]
        self._dir.record_children({server.name: server.pid for server in running if server.pid is not None})

    def _check_api_port(self) -> None:
        port = self._options.api_port
        if port and not port_is_free(port):
            raise StackError(
                f"Port {port} is taken. Choose another with --api-port, or leave it out to get a free one."
            )

    def _configure(self) -> Settings:
        overrides: dict[str, Any] = {}
        if self._brokers:
            overrides["kafka_bootstrap_servers"] = ",".join(broker.bootstrap for broker in self._brokers)
        if self._database is not None:
            self._database.ensure_database()
            overrides["database_url"] = self._database.url()
        if self._security is not None:
            overrides |= self._security.client_settings()
        if not is_given("operators_account"):
            overrides["operators_account"] = endpoints.ACCOUNT  # whoever has this machine
        if not is_given("secret_keys"):
            overrides["secret_keys"] = self._dir.secret_key()
        self._given = {variable(name): str(value) for name, value in overrides.items()}
        return load_settings(**overrides)

    def _prepare(self, settings: Settings) -> None:
        """Prepare what the services need: migrations, topics, and an account with a key."""
        migrate(settings.direct_url())
        ensure_topics(settings)
        with Session.connect(settings.database_url.get_secret_value(), name="up") as connection:
            self._api_key = endpoints.ensure_api_key(connection, self._dir)

    def _build_services(self, settings: Settings) -> dict[str, list[ServiceProcess]]:
        env = {
            **self._given,
            "GO2HOOKS_LOG_FORMAT": os.environ.get("GO2HOOKS_LOG_FORMAT", "text"),
            "GO2HOOKS_METRICS_PORT": "0",
            "GO2HOOKS_API_PORT": str(self._choose_api_port()),
        }

        def service(name: str, kind: str) -> ServiceProcess:
            return ServiceProcess(name, f"services.{kind}", self._dir, env, drain_timeout_s=settings.drain_timeout_s)

        dispatchers = [service(f"dispatcher-{n}", "dispatcher") for n in range(1, self._options.dispatchers + 1)]
        return {
            "api": [service("api", "api")],
            "router": [service("router", "router")],
            "replayer": [service("replayer", "router.replay")],
            "dispatcher": dispatchers,
        }

    def _choose_api_port(self) -> int:
        """The API's port: kept while the stack runs, and by the next start if it is still free."""
        ports = self._dir.read_json("api-port.json") or {}
        port = self._options.api_port or free_port(ports.get("api"))
        self._dir.write_json("api-port.json", {"api": port})
        return port


def _stop_together(servers: Sequence[Server]) -> None:
    """Ask all to stop, then wait for each; one that exceeds its time is killed."""
    for server in servers:
        server.ask_to_stop()
    deadline = time.monotonic() + max((server.stop_timeout_s for server in servers), default=0.0)
    for server in servers:
        server.wait_stopped(max(0.0, deadline - time.monotonic()))


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, like Ctrl-C."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
