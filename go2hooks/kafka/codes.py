"""librdkafka's own error codes. The binding documents them, under names that begin with an underscore."""

# ruff: noqa: SLF001

from typing import Final

from confluent_kafka import KafkaError

ALL_BROKERS_DOWN: Final[int] = KafkaError._ALL_BROKERS_DOWN
AUTHENTICATION: Final[int] = KafkaError._AUTHENTICATION
#: A consumer is to read at an offset that is not there, and its configuration says that this is an error.
AUTO_OFFSET_RESET: Final[int] = KafkaError._AUTO_OFFSET_RESET
#: Another message of the same batch was invalid.
INVALID_DIFFERENT_RECORD: Final[int] = KafkaError._INVALID_DIFFERENT_RECORD
#: A partition was read to its end. The report's offset is the end.
PARTITION_EOF: Final[int] = KafkaError._PARTITION_EOF
RESOLVE: Final[int] = KafkaError._RESOLVE
TIMED_OUT: Final[int] = KafkaError._TIMED_OUT
TRANSPORT: Final[int] = KafkaError._TRANSPORT
