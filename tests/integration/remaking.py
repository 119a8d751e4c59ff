"""A topic that somebody deletes and makes again."""

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, NewTopic
from waiting import eventually


def topic_id(admin: AdminClient, topic: str) -> str | None:
    """None while Kafka does not know it."""
    try:
        return str(admin.describe_topics(TopicCollection([topic]))[topic].result(20).topic_id)
    except KafkaException:
        return None


def delete(admin: AdminClient, topic: str) -> None:
    admin.delete_topics([topic])[topic].result(20)


def make(admin: AdminClient, topic: str, partitions: int = 1) -> None:
    """As soon as Kafka is done with the deletion of the one before."""

    def made() -> bool:
        try:
            admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(20)
        except KafkaException:
            return False
        return True

    eventually(made)
    eventually(lambda: topic_id(admin, topic))


def make_again(bootstrap: str, topic: str, partitions: int = 1) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    before = topic_id(admin, topic)
    delete(admin, topic)
    make(admin, topic, partitions)
    eventually(lambda: topic_id(admin, topic) not in (before, None))
