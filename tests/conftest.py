"""Real servers for every test that asks for one: containers where a Docker engine answers, the embedded stack elsewhere."""

import os
import secrets
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest
import structlog
from confluent_kafka.admin import AdminClient, NewTopic
from hypothesis import HealthCheck, settings
from psycopg import sql
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from go2hooks.build import BUILD
from go2hooks.devstack.broker import Broker
from go2hooks.devstack.database import Database
from go2hooks.postgres.migrate import migrate

TEMPLATE = "go2hooks_template"
HAVE_STACKS_OF_THEIR_OWN = {"test_brokers.py", "test_demo.py", "test_torture_short.py"}

# A machine that is busy with something else is no failure. `make models` asks for many more examples, `make test` for fewer where
# it tries the same once more.
settings.register_profile("go2hooks", deadline=None, suppress_health_check=[HealthCheck.too_slow])
EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "10000"))
settings.register_profile("brief", settings.get_profile("go2hooks"), max_examples=25)
settings.register_profile("long", settings.get_profile("go2hooks"), max_examples=EXAMPLES, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "go2hooks"))


COMPILED = BUILD.kind == "compiled"  # see GO2HOOKS_BUILD


def pytest_report_header() -> str:
    return f"go2hooks: {BUILD}"


class Together(LoadFileScheduling):
    """One worker runs all tests of a file, and all acceptance tests that share a stack."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        shares = "/acceptance/" in path and path.rpartition("/")[2] not in HAVE_STACKS_OF_THEIR_OWN
        return "tests/acceptance" if shares else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    return Together(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if COMPILED and item.get_closest_marker("plain"):
            item.add_marker(pytest.mark.skip(reason="patches what is compiled here"))


# Of every Kafka that a test starts, by whatever command, the quick compiler alone: none lives long enough for the thorough
# one to pay off.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")

# A traceback with every local of every frame takes seconds, in the very event loop that a test waits for.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)


@pytest.fixture(scope="session")
def docker() -> bool:
    """Whether a Docker engine answers."""
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=10, check=False).returncode == 0
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False


@pytest.fixture(scope="session")
def servers_dir() -> Iterator[Path]:
    """Not pytest's own directory: it takes away the permission by which an unprivileged Postgres gets there."""
    with tempfile.TemporaryDirectory(prefix="go2hooks-tests-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def kafka_bootstrap(docker: bool, servers_dir: Path) -> Iterator[str]:
    """`host:port` of one broker, shared by all tests: use topics and groups of your own."""
    with ExitStack() as stack:
        if docker:
            from containers import kafka_container

            container, address = kafka_container()
            stack.enter_context(container)
            yield address
        else:
            yield stack.enter_context(Broker(servers_dir / "kafka")).bootstrap


@pytest.fixture(scope="session")
def postgres_url(docker: bool, servers_dir: Path) -> Iterator[Callable[[str], str]]:
    """From a database's name to its URL, on one Postgres shared by all tests."""
    with ExitStack() as stack:
        if docker:
            from containers import postgres_container

            base = stack.enter_context(postgres_container()).get_connection_url().rpartition("/")[0]
            yield lambda name: f"{base}/{name}"
        else:
            yield stack.enter_context(Database(servers_dir / "postgres", durable=False)).url


@pytest.fixture(scope="session")
def template_database(postgres_url: Callable[[str], str]) -> str:
    """Name of a database that was migrated once, to be cloned."""
    with psycopg.connect(postgres_url("postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
    migrate(postgres_url(TEMPLATE))
    return TEMPLATE


@pytest.fixture(scope="session")
def new_database(
    postgres_url: Callable[[str], str], template_database: str
) -> Callable[[], AbstractContextManager[str]]:
    """Makes a context manager: an empty, migrated database and its URL, for as long as the block lasts."""

    @contextmanager
    def make() -> Iterator[str]:
        name = sql.Identifier(database := f"test_{secrets.token_hex(6)}")
        with psycopg.connect(postgres_url("postgres"), autocommit=True) as admin:
            admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(name, sql.Identifier(template_database)))
            yield postgres_url(database)
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))

    return make


@pytest.fixture
def database_url(new_database: Callable[[], AbstractContextManager[str]]) -> Iterator[str]:
    """URL of an empty, migrated database of the test's own."""
    with new_database() as url:
        yield url


@pytest.fixture(scope="session")
def create_topic(kafka_bootstrap: str) -> Callable[..., str]:
    """`create_topic(partitions=1, **config)` makes a topic with a name of its own and returns the name."""
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})

    def create(partitions: int = 1, **config: str) -> str:
        name = f"test.{secrets.token_hex(6)}"
        settings = {key.replace("_", "."): value for key, value in config.items()}
        topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=settings)
        admin.create_topics([topic])[name].result(timeout=60)
        return name

    return create
