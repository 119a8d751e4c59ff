"""Send what the outbox holds to Kafka, and delete it once Kafka has it.

    python relay.py --database postgresql://… --kafka localhost:9092

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
from go2hooks.core.errors import EventError, UnavailableError
from go2hooks.producer import EventProducer

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


def run(database: str, kafka: str, stop: threading.Event) -> None:
    """Relay until `stop` is set. Outages of Postgres and Kafka are waited for."""
    while not stop.is_set():
        try:
            with (
                psycopg.connect(database, autocommit=True) as conn,
                EventProducer(kafka, config=PRODUCER, close_timeout_s=1.0) as producer,
            ):
                while not stop.is_set():
                    if not relay(conn, producer, stop):
                        stop.wait(PAUSE_S)
        except (psycopg.OperationalError, UnavailableError) as error:
            sys.stderr.write(f"{type(error).__name__}: {error}; what is left stays in the outbox\n")
            stop.wait(RETRY_S)


def relay(conn: Connection[Any], producer: EventProducer, stop: threading.Event) -> int:
    """Send the oldest events that no other relay is sending, in order. Returns how many left the outbox.

    Blocks while Kafka is away. Raises UnavailableError when Kafka refused some: they, and what follows them in their
    accounts, stay.
    """
    errors: dict[int, Exception | None] = {}  # what Kafka said of each position, None being good
    with conn.transaction():
        sent = []
        for row in conn.cursor(row_factory=class_row(Row)).execute(TAKE).fetchall():
            try:
                producer.send(CODEC.decode(row.event), partial(errors.__setitem__, row.position))
                sent.append(row)
            except EventError as error:  # the event's own fault, such as too large for Kafka: the others go on
                conn.execute(REFUSE, [str(error), row.position])
        while producer.flush(1.0) and not stop.is_set():
            pass  # the transaction, and with it the rows, are held until Kafka has answered for each of them
        gone = list(acknowledged(sent, errors))
        conn.execute(DELETE, [gone])
    if failed := next(filter(None, errors.values()), None):
        raise UnavailableError(str(failed))
    return len(gone)


def acknowledged(sent: Iterable[Row], errors: dict[int, Exception | None]) -> Iterator[int]:
    """The positions that may be deleted: of each account, those before the first that Kafka does not have."""
    stuck = set()
    for row in sent:
        if errors.get(row.position, row) is not None:
            stuck.add(row.account_id)
        elif row.account_id not in stuck:
            yield row.position


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", required=True, help="URL of the Postgres that has the outbox")
    parser.add_argument("--kafka", required=True, help="bootstrap servers, host:port, comma separated")
    options = parser.parse_args()
    stop = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stop.set())
    run(options.database, options.kafka, stop)


if __name__ == "__main__":
    main()
