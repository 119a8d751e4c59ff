"""The brokers of a data directory: number, ports and cluster id, stored in one file for the next start."""

import base64
import json
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from go2hooks.devstack.data_dir import write_private
from go2hooks.devstack.errors import StackError
from go2hooks.devstack.processes import free_port

_FILE: Final = "quorum.json"


@dataclass(frozen=True, slots=True)
class Node:
    """A broker that is a controller too; it listens on loopback at both ports."""

    id: int
    port: int
    controller_port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@dataclass(frozen=True, slots=True)
class Quorum:
    """The nodes of one cluster, by ascending id from 1, and where each keeps its data."""

    directory: Path
    cluster_id: str
    nodes: tuple[Node, ...]

    @property
    def is_alone(self) -> bool:
        """Whether it is a single node's."""
        return len(self.nodes) == 1

    @property
    def voters(self) -> str:
        """As `controller.quorum.voters` wants it."""
        return ",".join(f"{node.id}@127.0.0.1:{node.controller_port}" for node in self.nodes)

    def dir_of(self, node: Node) -> Path:
        """The data directory of a node. A single node uses the directory itself."""
        return self.directory if self.is_alone else self.directory / f"node-{node.id}"


def open_quorum(directory: Path, brokers: int | None = None) -> Quorum:
    """The quorum that `directory` holds, otherwise a new one of `brokers` nodes (None: 1). Ports are kept while they are free.

    Raises StackError when the directory holds another number of brokers than was asked for.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    kept = _read(directory) or {"clusterId": new_id(), "nodes": [{}] * (brokers or 1)}
    nodes = kept["nodes"]
    if brokers not in (None, len(nodes)):
        raise StackError(
            f"{directory} holds a cluster of {len(nodes)} broker(s), which cannot become one of {brokers}: "
            "leave --brokers out to go on with it, or choose another directory with --data-dir."
        )
    ports = iter(_distinct_ports(node.get(name) for node in nodes for name in ("port", "controller_port")))
    quorum = Quorum(
        directory, kept["clusterId"], tuple(Node(n, next(ports), next(ports)) for n in range(1, len(nodes) + 1))
    )
    content = {"clusterId": quorum.cluster_id, "nodes": [asdict(node) for node in quorum.nodes]}
    write_private(directory / _FILE, json.dumps(content, indent=1) + "\n")
    return quorum


def holds_brokers(directory: Path) -> bool:
    """Whether `open_quorum` would go on with what is there, also with what an older version made."""
    return _read(directory) is not None


def new_id() -> str:
    """An id as Kafka makes them: 128 random bits in base64."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def _read(directory: Path) -> dict[str, Any] | None:
    """Read the stored quorum. A directory of an older version has a single node, whose port is in a file."""
    if (path := directory / _FILE).exists():
        content: dict[str, Any] = json.loads(path.read_bytes())
        return content
    formatted, port = directory / "log" / "meta.properties", directory / "port"
    if not formatted.exists():
        return None
    properties = dict(line.split("=", 1) for line in formatted.read_text().splitlines() if "=" in line)
    return {"clusterId": properties["cluster.id"], "nodes": [{"port": int(port.read_text())} if port.exists() else {}]}


def _distinct_ports(preferred: Iterable[int | None]) -> list[int]:
    ports: list[int] = []
    for wanted in preferred:
        port = free_port(wanted)
        while port in ports:
            port = free_port()
        ports.append(port)
    return ports
