"""One of our own services as a child: `python -m services.<module>`, configured by its environment alone."""

import http.client
import json
import sys
from pathlib import Path

from go2hooks.devstack.data_dir import DataDir
from go2hooks.devstack.processes import Command
from go2hooks.devstack.server import Server


class ServiceProcess(Server):
    """A service writes its port to a file; it is ready when `/readyz` answers 200."""

    def __init__(
        self, name: str, module: str, data_dir: DataDir, env: dict[str, str], *, drain_timeout_s: float
    ) -> None:
        super().__init__(name)
        self.stop_timeout_s = drain_timeout_s + 3.0  # past the service's own drain time
        self._module = module
        self._log = data_dir.log(name)
        self._port_file: Path = data_dir.port_file(name)
        self._env = env | {"GO2HOOKS_PORT_FILE": str(self._port_file)}

    @property
    def port(self) -> int | None:
        """The port it listens on; None until its file is there."""
        try:
            port: int = json.loads(self._port_file.read_bytes())["port"]
        except FileNotFoundError:
            return None
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def is_ready(self) -> bool:
        port = self.port
        if port is None:
            return False
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2.0)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _prepare(self) -> Command:
        self._port_file.parent.mkdir(exist_ok=True)
        self._port_file.unlink(missing_ok=True)
        # -P: ignores a directory called "services" in the working directory.
        return Command(argv=(sys.executable, "-P", "-m", self._module), log=self._log, env=self._env)
