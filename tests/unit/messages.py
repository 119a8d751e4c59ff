"""Consumed messages that carry deliveries, and where they come from, for intakes without a Kafka."""

from go2hooks.codec import encode_delivery
from go2hooks.core.domain.delivery import Delivery, Kind
from go2hooks.kafka.partitions import PartitionKey

DELIVERY = Delivery("dlv_1", "wh_1", "acme", "evt_1", "click", "", b'{"a":1}', 1, 0, Kind.EVENT, 0, suspect=False)


class Consumer:
    """What an intake asks of its consumer."""

    failure: BaseException | None = None
    released = 0

    def weigh(self, size: int) -> int:
        return -(-size // 1000)

    def release(self, weight: int = 1) -> None:
        self.released += weight


class Message:
    """What an intake asks of one; and what it was made of."""

    def __init__(self, where: PartitionKey, at: int, delivery: Delivery = DELIVERY, raw: bytes | None = None) -> None:
        """`raw` instead of the delivery, for what cannot be decoded."""
        self.where, self.at, self.delivery = where, at, delivery
        self._raw = encode_delivery(delivery) if raw is None else raw

    def topic(self) -> str:
        return self.where.topic

    def partition(self) -> int:
        return self.where.partition

    def offset(self) -> int:
        return self.at

    def timestamp(self) -> tuple[int, int]:
        return 1, 1000

    def key(self) -> bytes:
        return self.delivery.webhook_id.encode()

    def value(self) -> bytes:
        return self._raw

    def __len__(self) -> int:
        return len(self._raw)
