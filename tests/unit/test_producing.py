"""The core of all producers, on a client that refuses as librdkafka and brokers do."""

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from go2hooks.kafka import codes, producing
from go2hooks.kafka.producing import InternalProducer, RefusedError, enqueue

TOO_LARGE = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)
DENIED = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)


class Sent:
    """A message as a report tells of it."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    def topic(self) -> str:
        return "t"

    def key(self) -> None:
        return None

    def value(self) -> bytes:
        return self._value


class Client:
    """Has room for some messages, and a report for each when it is polled."""

    def __init__(self, room: int = 10, report: KafkaError | None = None) -> None:
        self.room = room
        self.report = report
        self.waiting: list[Callable[[], None]] = []
        self.sent: list[tuple[bytes, Any]] = []

    def produce(self, _topic: str, value: bytes, _key: Any, *, on_delivery: Any, headers: Any) -> None:
        if len(self.waiting) >= self.room:
            raise BufferError
        self.sent.append((value, headers))
        self.waiting.append(lambda: on_delivery(self.report, Sent(value)))

    def poll(self, _timeout_s: float) -> None:
        waiting, self.waiting = self.waiting, []
        for serve in waiting:
            serve()


def test_a_message_waits_for_room_while_reports_are_served():
    client, reports = Client(room=1), []
    for number in range(3):
        assert enqueue(client, "t", None, b"%d" % number, lambda *report: reports.append(report))
    assert [value for value, _ in client.sent] == [b"0", b"1", b"2"]
    assert len(reports) == 2


def test_a_wait_for_room_ends_when_the_caller_gives_up():
    client = Client(room=0)
    asked: list[bool] = []

    def give_up() -> bool:
        asked.append(len(asked) == 2)
        return asked[-1]

    assert not enqueue(client, "t", None, b"", lambda *_: None, give_up=give_up)
    assert asked == [False, False, True]


def test_what_librdkafka_itself_refuses_is_told_apart_from_what_a_callback_raises():
    class Refusing(Client):
        def produce(self, *_: Any, **__: Any) -> None:
            raise KafkaException(TOO_LARGE)

    with pytest.raises(RefusedError) as refused:
        enqueue(Refusing(), "t", None, b"", lambda *_: None)
    assert refused.value.reason.code() == KafkaError.MSG_SIZE_TOO_LARGE


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> list[Client]:
    """The client for batches, and the one for messages that are sent alone; their reports are to be set."""
    made = [Client(), Client()]
    given = iter(made)
    monkeypatch.setattr(producing, "Producer", lambda _config: next(given))
    return made


@pytest.mark.plain
class TestRefusedInABatch:
    def settle(self, producer: InternalProducer, error: KafkaError, clients: list[Client]) -> list[KafkaError | None]:
        settled: list[KafkaError | None] = []
        producer.send_again(error, Sent(b"x"), [("h", "1")], lambda again, _sent: settled.append(again))
        clients[1].poll(0)
        return settled

    @pytest.mark.parametrize("code", [KafkaError.MSG_SIZE_TOO_LARGE, codes.INVALID_DIFFERENT_RECORD])
    def test_a_message_is_sent_again_alone_with_its_headers(self, clients, code):
        producer = InternalProducer({})
        assert self.settle(producer, KafkaError(code), clients) == [None]
        assert clients[1].sent == [(b"x", [("h", "1")])]
        assert producer.failure is None

    def test_a_message_that_is_refused_alone_too_is_settled_as_refused(self, clients):
        clients[1].report = TOO_LARGE
        producer = InternalProducer({})
        assert self.settle(producer, TOO_LARGE, clients) == [TOO_LARGE]
        assert producer.failure is None

    def test_the_first_failure_that_is_not_about_the_message_is_kept(self, clients):
        producer = InternalProducer({})
        assert self.settle(producer, DENIED, clients) == []
        clients[1].report = KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)
        assert self.settle(producer, TOO_LARGE, clients) == []
        assert producer.failure == f"t: {DENIED.str()}"
