"""Topics for tests, to be used at once: Kafka says that it has created one before it leads every partition of it.

After a restart, too: it answers for some partitions before it leads the others.
"""

from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from waiting import WITHIN_S, eventually

from go2hooks.core.errors import UnavailableError
from go2hooks.kafka.admin import ensure_topics, wanted_topics
from go2hooks.kafka.partitions import PartitionKey
from go2hooks.kafka.reading import LogReader
from go2hooks.settings import Settings

_NOT_LED = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)


def make_topics(settings: Settings) -> None:
    """`ensure_topics`, until all of their partitions answer."""
    ensure_topics(settings)
    keys = [PartitionKey(topic.name, number) for topic in wanted_topics(settings) for number in range(topic.partitions)]
    with LogReader(settings) as reader:
        eventually(lambda: _answer(reader, keys), every_s=0.05)


def _answer(reader: LogReader, keys: list[PartitionKey]) -> bool:
    try:
        return set(reader.partitions({key.topic for key in keys})) >= set(keys) and len(reader.ends(keys)) == len(keys)
    except UnavailableError:
        return False


def configure(bootstrap: str, topic: str, values: Mapping[str, str]) -> None:
    """As somebody would who means it otherwise."""
    entries = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in values.items()]
    update = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    admin = AdminClient(
        {"bootstrap.servers": bootstrap}
    )  # named: one that nobody holds ends with its question unanswered
    admin.incremental_alter_configs([update])[update].result(20)


def watermarks(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """The partition's first offset and the one after its last, as soon as it is led."""

    def asked() -> tuple[int, int] | None:
        try:
            return consumer.get_watermark_offsets(partition, timeout=WITHIN_S)
        except KafkaException as error:
            if error.args[0].code() in _NOT_LED:
                return None
            raise

    low, high = eventually(asked, every_s=0.05)
    return low, high
