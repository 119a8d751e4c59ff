"""The business's side of the outbox: a link and the event about it, both or neither.

    python links.py --database postgresql://… --account acc_1 --slug launch

Needs the table of `outbox.sql`, and `links`, which stands for your own.
"""

import argparse
import secrets
import time
from typing import Any

import psycopg
from psycopg import Connection

from go2hooks.codec import EventCodec
from go2hooks.producer import Event, EventType, new_event_id, validate

LINKS = "CREATE TABLE IF NOT EXISTS links (id text PRIMARY KEY, account_id text NOT NULL, slug text NOT NULL)"
CODEC = EventCodec()


def create_link(conn: Connection[Any], account_id: str, slug: str) -> str:
    """Make a link, and its event with it. Returns the event's id. To be called within a transaction of the caller's."""
    link_id = f"lnk_{secrets.token_hex(8)}"
    conn.execute("INSERT INTO links (id, account_id, slug) VALUES (%s, %s, %s)", [link_id, account_id, slug])
    data = {
        "id": link_id,
        "slug": slug,
        "domain": "go2.example",
        "destinationUrl": "https://example.com/",
        "shortUrl": f"https://go2.example/{slug}",
        "createdBy": "usr_1",
    }
    event = Event(new_event_id(), account_id, EventType.LINK_CREATED, time.time_ns() // 1_000_000, data)
    put(conn, event)
    return event.id


def put(conn: Connection[Any], event: Event) -> None:
    """Add an event to the outbox, as part of the caller's transaction: the last thing before its commit.

    From here on the account's other transactions that put events wait for this one. Positions are given out before the
    commit: without the lock, the later one could be committed, and sent, first. Raises InvalidEventError, which should
    end the transaction, for an event that nobody could be sent.
    """
    validate(event)
    value = CODEC.encode(event)
    conn.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"outbox {event.account_id}"])
    conn.execute(
        "INSERT INTO outbox (account_id, event_id, event) VALUES (%s, %s, %s)", [event.account_id, event.id, value]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", required=True, help="URL of your Postgres")
    parser.add_argument("--account", default="acc_1")
    parser.add_argument("--slug", default="launch")
    options = parser.parse_args()
    with psycopg.connect(options.database) as conn:  # one transaction: committed at the block's end, or rolled back
        conn.execute(LINKS)
        event_id = create_link(conn, options.account, options.slug)
    print(event_id)


if __name__ == "__main__":
    main()
