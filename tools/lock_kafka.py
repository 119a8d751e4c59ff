"""Write the list of Kafka's jars with their checksums, for a new version of Kafka: `python tools/lock_kafka.py 4.3.0`.

kafka-clients is named before kafka_2.13, at the same version: left to itself the resolver picks an older one,
with which the broker dies of a NoSuchMethodError.
"""

import hashlib
import sys
from pathlib import Path

import jgo

LOCK = Path(__file__).parents[1] / "go2hooks" / "devstack" / "kafka-jars.txt"


def main(version: str) -> None:
    roots = (
        f"org.apache.kafka:kafka-clients:{version}",
        f"org.apache.kafka:kafka_2.13:{version}",
        "org.slf4j:slf4j-simple:1.7.36",
    )
    lines = [
        f"# Kafka {version} and what it needs, in class path order, each with its SHA-256. Written by tools/lock_kafka.py."
    ]
    for artifact in jgo.resolve("+".join(roots)):
        digest = hashlib.sha256(artifact.resolve().read_bytes()).hexdigest()
        lines.append(f"{artifact.groupId}:{artifact.artifactId}:{artifact.version} {digest}")
    LOCK.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
