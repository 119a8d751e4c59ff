"""Messages as they are put into the dead-letter topics."""

from confluent_kafka import Producer


def writer(bootstrap):
    """`writer(bootstrap)(topic, key, value, **headers)` gives the message's place, as commands and pages name it."""
    producer = Producer({"bootstrap.servers": bootstrap})

    def produce(topic, key, value, /, **headers):
        places = []
        named = [(f"go2hooks-{name}", str(text).encode()) for name, text in headers.items()]
        producer.produce(topic, value, key, headers=named, on_delivery=lambda _e, m: places.append(m))
        assert producer.flush(10) == 0
        return f"{topic.split('.')[1]}/{places[0].partition()}/{places[0].offset()}"

    return produce
