"""Send what the outbox holds to Kafka, and delete it once Kafka has it.

    python relay.py --database postgresql://… --kafka localhost:9092

How Kafka is reached (TLS, user, password) and what its topics begin with is read from the `GO2HOOKS_KAFKA_*` variables.
Run as many as you like: each works on accounts that no other is working on. Kill any of them at any moment: what was
not deleted is sent (again), with the ids that it always had.
"""

import argparse
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import psycopg
from psycopg import Connection
from psycopg.rows import class_row

from go2hooks.codec import EventCodec
from go2hooks.producer import EventError, EventProducer, UnavailableError
from go2hooks.settings import KafkaSettings, load_kafka_settings

# Who has locked an account's oldest row has the account. Rows are looked at in order, so the oldest of an account among
# them is its oldest of all; a row that another relay has locked, or has just deleted, is skipped, and its account with it.
TAKE = """
    WITH oldest AS (
        SELECT position, account_id FROM outbox WHERE refused IS NULL ORDER BY position LIMIT 5000
    ), mine AS (
        SELECT account_id FROM outbox
        WHERE refused IS NULL AND position IN (SELECT min(position) FROM oldest GROUP BY account_id)
        ORDER BY position LIMIT 100 FOR UPDATE SKIP LOCKED
    )
    SELECT position, account_id, event FROM outbox JOIN oldest USING (position, account_id) JOIN mine USING (account_id)
    ORDER BY position LIMIT 500
"""
DELETE = "DELETE FROM outbox WHERE position = ANY(%s)"
REFUSE = "UPDATE outbox SET refused = %s WHERE position = %s"

# Never give up on a message: then Kafka may be away for as long as it likes, and no later one overtakes an earlier.
PRODUCER = {"message.timeout.ms": 0}
PAUSE_S = 0.1  # when there was nothing to send; and so the delay of an event that comes after a pause
RETRY_S = 1.0  # after an error
CODEC = EventCodec()


class Row(NamedTuple):
    """One event on its way."""

    position: int
    account_id: str
    event: bytes


def run(database: str, kafka: KafkaSettings, stop: threading.Event) -> None:
    """Relay until `stop` is set. Outages of Postgres and Kafka are waited for."""
    while not stop.is_set():
        try:
            with (
                psycopg.connect(database, autocommit=True) as conn,
                EventProducer.from_environment(kafka, config=PRODUCER, close_timeout_s=1.0) as producer,
            ):
                while not stop.is_set():
                    if not relay(conn, producer, stop):
                        stop.wait(PAUSE_S)
        except (psycopg.OperationalError, UnavailableError) as error:
            sys.stderr.write(f"{type(error).__name__}: {error}; what is left stays in the outbox\n")
            stop.wait(RETRY_S)


def relay(conn: Connection[Any], producer: EventProducer, stop: threading.Event) -> int:
    """Send the oldest events that no other relay is sending, in order. Returns how many left the outbox.

    Blocks while Kafka is away. Events that Kafka will never take are marked. Raises UnavailableError when it could not
    be given others: they, and what follows them in their accounts, stay.
    """
    errors: dict[int, Exception | None] = {}  # what came of each position, None being good
    with conn.transaction():
        rows = conn.cursor(row_factory=class_row(Row)).execute(TAKE).fetchall()
        for row in rows:
            send(row, producer, errors)
        wait_for(producer, stop)
        for row in rows:
            if refused(row, errors) and not stop.is_set():
                send(row, producer, errors)  # once more, alone: a broker refuses a batch with all that is in it
                wait_for(producer, stop)
                if refused(row, errors):
                    conn.execute(REFUSE, [str(errors[row.position]), row.position])
        gone = list(acknowledged(rows, errors))
        conn.execute(DELETE, [gone])
    if failed := next((error for error in errors.values() if isinstance(error, UnavailableError)), None):
        raise UnavailableError(str(failed))
    return len(gone)


def send(row: Row, producer: EventProducer, errors: dict[int, Exception | None]) -> None:
    """What comes of it is in `errors`, at once or when Kafka has answered."""
    errors.pop(row.position, None)
    try:
        producer.send(CODEC.decode(row.event), partial(errors.__setitem__, row.position))
    except EventError as error:
        errors[row.position] = error


def wait_for(producer: EventProducer, stop: threading.Event) -> None:
    """The transaction, and with it the rows, are held until Kafka has answered for each of them."""
    while producer.flush(1.0) and not stop.is_set():
        pass


def refused(row: Row, errors: dict[int, Exception | None]) -> bool:
    """Whether it is the event's own fault, such as too large for Kafka: the others go on."""
    return isinstance(errors.get(row.position), EventError)


def acknowledged(rows: Iterable[Row], errors: dict[int, Exception | None]) -> Iterator[int]:
    """The positions that may be deleted: of each account, those before the first that Kafka may still be given."""
    stuck = set()
    for row in rows:
        if refused(row, errors):
            continue
        if errors.get(row.position, row) is not None:
            stuck.add(row.account_id)
        elif row.account_id not in stuck:
            yield row.position


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", required=True, help="URL of the Postgres that has the outbox")
    parser.add_argument("--kafka", help="bootstrap servers, host:port, comma separated (or in the environment)")
    options = parser.parse_args()
    servers = {"kafka_bootstrap_servers": options.kafka} if options.kafka else {}
    stop = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stop.set())
    run(options.database, load_kafka_settings(**servers), stop)


if __name__ == "__main__":
    main()
