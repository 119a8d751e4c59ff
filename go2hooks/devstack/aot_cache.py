"""Make the ahead-of-time (AOT) cache of Kafka's Java virtual machine: it runs Kafka once, and the JVM stores the classes
that it loaded and linked, and profiles of their methods. Later starts then take little more than half the CPU time.

`make setup` runs it. Without the cache Kafka starts more slowly.
"""

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from confluent_kafka import Consumer, Producer

from go2hooks.core.errors import Go2HooksError
from go2hooks.devstack.artifacts import aot_cache, kafka_classpath, kafka_dir
from go2hooks.devstack.broker import Broker
from go2hooks.devstack.errors import StackError
from go2hooks.kafka.admin import ensure_topics
from go2hooks.kafka.client import consumer_config, producer_config
from go2hooks.kafka.topics import TopicNames
from go2hooks.settings import Settings, load_settings

_MESSAGES: Final = 2000
_WITHIN_S: Final = 60.0


def make() -> None:
    """Make `aot_cache()`. Raises StackError when the broker does not start, does not serve, or writes no cache."""
    with TemporaryDirectory(prefix="aot-cache-", dir=kafka_dir()) as directory:
        learnt = Path(directory) / "learnt.aot"
        broker = Broker(Path(directory) / "kafka", jvm_options=(f"-XX:AOTCacheOutput={learnt}",))
        broker.stop_timeout_s = 180.0  # the JVM writes the cache while the broker stops
        with broker:
            _perform(load_settings(kafka_bootstrap_servers=broker.bootstrap))
        if not learnt.exists():
            raise StackError(f"Kafka left no AOT cache. {broker.obituary()}")
        learnt.replace(aot_cache())


def _perform(settings: Settings) -> None:
    """A broker's usual work: create topics, take single messages, serve a group that reads and commits."""
    ensure_topics(settings)
    producer = Producer(producer_config(settings))
    consumer = Consumer(consumer_config(settings, "aot-cache"))
    topic = TopicNames(settings.kafka_prefix).deliveries
    consumer.subscribe([topic])
    deadline = time.monotonic() + _WITHIN_S
    try:
        for n in range(_MESSAGES):
            producer.produce(topic, bytes(300), key=str(n))
            producer.poll(0.0)
            while n % 4 == 0 and len(producer) > 0:
                producer.poll(0.1)
                _check(deadline)
        read = 0
        while read < _MESSAGES:
            _check(deadline)
            message = consumer.poll(0.1)
            if message is not None and message.error() is None:
                consumer.store_offsets(message)
                read += 1
    finally:
        consumer.close()


def _check(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise StackError(f"Kafka did not take and give {_MESSAGES} messages within {_WITHIN_S:.0f} s.")


def main() -> None:
    """Fill the cache ahead of the first start."""
    try:
        kafka_classpath()
    except StackError as error:
        sys.exit(str(error))
    if aot_cache().exists():
        return
    print("Making Kafka's AOT cache of one start …", flush=True)  # noqa: T201
    started = time.monotonic()
    try:
        make()
    except (Go2HooksError, OSError) as error:
        # All works without it.
        print(f"Kafka will take longer to start than it could: {error}", file=sys.stderr)  # noqa: T201
    else:
        print(f"Kafka's AOT cache: done in {time.monotonic() - started:.0f} s", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
