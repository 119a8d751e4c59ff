"""The embedded Kafka and Postgres, alone."""

from collections.abc import Callable

import psycopg
from confluent_kafka import Consumer, Producer


def test_what_is_produced_to_the_embedded_broker_can_be_consumed(
    kafka_bootstrap: str, create_topic: Callable[..., str]
):
    topic = create_topic()
    producer = Producer({"bootstrap.servers": kafka_bootstrap})
    producer.produce(topic, b"hello")
    assert producer.flush(10) == 0
    consumer = Consumer({"bootstrap.servers": kafka_bootstrap, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    message = consumer.poll(15)
    consumer.close()
    assert message.value() == b"hello"


def test_each_test_gets_an_empty_migrated_database(database_url: str):
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM webhooks").fetchone() == (0,)


def test_another_database_of_the_same_template_does_not_see_its_rows(database_url: str):
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO accounts (id) VALUES ('acme')")
        assert connection.execute("SELECT count(*) FROM accounts").fetchone() == (1,)
