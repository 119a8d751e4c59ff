"""All metrics of router and dispatcher. None has a label per webhook or account."""

from collections.abc import Iterable

from prometheus_client import GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from go2hooks import __version__
from go2hooks.build import BUILD
from go2hooks.codec import LOGICAL_TYPE_KEPT, OBJECT_KEPT
from go2hooks.core.domain.event import EventType
from go2hooks.core.domain.outcome import Failure
from go2hooks.core.errors import InvalidEventError, UndecodableEventError, UnkeepableEventError
from go2hooks.telemetry.instruments import (
    DEFERRED_BUCKETS_S,
    REQUEST_BUCKETS_S,
    ROWS_BUCKETS,
    Counter,
    Gauge,
    Histogram,
)

# --- router

#: Events read from the event topics, by event type (undecodable ones are only in the next one).
EVENTS = Counter("go2hooks_events_total", "Events read from Kafka", ("event",), EventType)
#: Events that were written to go2.events.dead, by reason.
EVENTS_DEAD = Counter(
    "go2hooks_events_dead_total",
    "Events that could not become deliveries",
    ("reason",),
    (UndecodableEventError.reason, InvalidEventError.reason, UnkeepableEventError.reason),
)
#: Events that were read though their fingerprint is not what Avro's rules make of the schema, by the libraries that write it.
EVENTS_MISPRINTED = Counter(
    "go2hooks_events_misprinted_total",
    "Events read under a fingerprint that some libraries compute wrongly",
    ("libraries",),
    (OBJECT_KEPT, LOGICAL_TYPE_KEPT),
)
#: Deliveries written: divided by events, the fan-out.
DELIVERIES_CREATED = Counter("go2hooks_deliveries_created_total", "Deliveries written to Kafka by the router")
#: Of these, written to the overflow at once: their account had most of the waiting events, and others waited too.
CROWDED = Counter("go2hooks_deliveries_crowded_total", "Deliveries of a burst, written to the overflow by the router")
#: Deliveries written and not yet acknowledged by Kafka.
ROUTER_IN_FLIGHT = Gauge("go2hooks_router_in_flight", "Deliveries produced and not yet acknowledged")

# --- dispatcher

#: Attempts made, by outcome: `delivered` or the failure's name.
ATTEMPTS = Counter("go2hooks_attempts_total", "Attempts made", ("outcome",), ("delivered", *Failure))
#: Deliveries that came to an end, by state: delivered, failed (dead-lettered), skipped.
DELIVERIES_FINISHED = Counter(
    "go2hooks_deliveries_finished_total",
    "Deliveries that came to an end",
    ("state",),
    ("delivered", "failed", "skipped"),
)
#: Retries written to a tier, by tier (its delay, such as 5s).
RETRIES = Counter("go2hooks_retries_total", "Retries written to a retry tier", ("tier",))
#: Retries whose due time was further ahead than their tier's delay: the clock of their dispatcher is fast.
RETRY_DUE_IMPLAUSIBLE = Counter(
    "go2hooks_retry_due_implausible_total", "Retries that said to be due later than their tier's delay allows"
)
#: Messages dropped because the same attempt was already recorded or under way.
DUPLICATES = Counter("go2hooks_duplicates_dropped_total", "Messages recognised as duplicates and dropped")
#: Internal messages that could not be decoded (there should be none).
DELIVERIES_DEAD = Counter("go2hooks_deliveries_undecodable_total", "Delivery messages that could not be decoded")
#: One attempt, from its first step (pool or connect) to the end of the response's head, or to its failure.
REQUEST_SECONDS = Histogram("go2hooks_request_duration_seconds", "Duration of one attempt", REQUEST_BUCKETS_S)
#: From Kafka's acceptance of the event to the receiver's answer, first attempts only.
DELIVERY_SECONDS = Histogram(
    "go2hooks_event_to_delivery_seconds", "From the event in Kafka to the answer, first attempts"
)
#: The same for deferred deliveries (overflow), in a histogram of their own.
DEFERRED_SECONDS = Histogram(
    "go2hooks_deferred_delivery_seconds",
    "From the event in Kafka to the answer, deferred ones",
    DEFERRED_BUCKETS_S,
)
#: How long after its due time a retry was started.
RETRY_LATENESS_SECONDS = Histogram("go2hooks_retry_lateness_seconds", "Start of a retry after its due time")
#: Attempts under way.
IN_FLIGHT = Gauge("go2hooks_dispatcher_in_flight", "Attempts under way")
#: Deliveries in memory, by place: lane queues, due buffers, records not yet written.
QUEUED = Gauge("go2hooks_dispatcher_queued", "Deliveries in memory, by place", ("place",))
#: Deliveries moved aside without an attempt: to the overflow topic (busy, circuit, handed_on), or to a retry tier (parked).
OVERFLOWED = Counter(
    "go2hooks_deliveries_overflowed_total",
    "Deliveries moved aside without an attempt",
    ("why",),
    ("busy", "circuit", "parked", "handed_on", "limited"),
)
#: Webhooks whose circuit is open in this process.
CIRCUITS_OPEN = Gauge("go2hooks_circuits_open", "Webhooks that get one probe at a time")
#: Connections to receivers, by state.
CONNECTIONS = Gauge("go2hooks_connections", "Connections to receivers, by state", ("state",))
#: Time to write one batch of attempt records, failure counts included.
RECORD_SECONDS = Histogram("go2hooks_record_batch_seconds", "Time to write one batch of attempt records")
#: Records in a batch.
RECORD_ROWS = Histogram("go2hooks_record_batch_rows", "Attempt records in one batch", ROWS_BUCKETS)
#: Records that were written without some fields, since Postgres refused them (there should be none).
RECORDS_SIMPLIFIED = Counter(
    "go2hooks_records_simplified_total", "Steps by which a refused record lost something before it was written"
)
#: Age of the oldest delivery that is taken up, due, and not recorded: an attempt's timeout at most, unless Postgres is
#: away or a lane is crowded.
UNFINISHED_SECONDS = Gauge(
    "go2hooks_unfinished_seconds", "Age of the oldest due delivery in memory that is not recorded, by topic", ("topic",)
)
#: Webhooks disabled by this process after too many consecutive failures.
WEBHOOKS_DISABLED = Counter(
    "go2hooks_webhooks_disabled_total", "Webhooks disabled, for consecutive failures or 410 Gone"
)

#: Deliveries without a final record and without a message that waits, as last counted; `go2hooks reconcile` names them. NaN while
#: nobody knows.
ORPHANS = Gauge("go2hooks_deliveries_orphaned", "Deliveries that nobody will send any more: there should be none")

# --- replayer

#: Replays that this process works on; those that wait for the outcome of what was sent are not among them.
REPLAYS = Gauge("go2hooks_replays", "Replays that are being sent")
#: Events that replays have looked at in the log.
REPLAY_READ = Counter("go2hooks_replay_events_read_total", "Events read for replays")
#: Deliveries that replays have written, acknowledged by Kafka.
REPLAY_SENT = Counter("go2hooks_replay_deliveries_total", "Deliveries written by replays")
#: Seconds in which replays waited because others' deliveries waited.
REPLAY_HELD_SECONDS = Counter(
    "go2hooks_replay_held_seconds_total",
    "Time in which replays waited for deliveries that lay before theirs, in seconds",
)

# --- all

#: Which version and which of its builds (compiled, plain) this process runs; always 1.
BUILD_INFO = Gauge("go2hooks_build_info", "Version and build of this process", ("version", "build"))
BUILD_INFO.set(1, __version__, BUILD.kind)

# --- both

#: Messages between what was read and the end of the log, by topic.
LAG_MESSAGES = Gauge("go2hooks_lag_messages", "Messages not yet read, by topic", ("topic",))
#: Age of the oldest message that is due and was not begun, by topic: alert on it. Waiting retries are not late.
LAG_SECONDS = Gauge("go2hooks_lag_seconds", "Age of the oldest due message not yet taken up, by topic", ("topic",))
#: Partitions that were read from their start, since the committed offset is of a deleted topic.
PARTITIONS_ANEW = Counter(
    "go2hooks_partitions_read_anew_total", "Partitions read from their start, as the topic had been made again"
)
#: Messages that Kafka refused, mostly as too large, by topic.
REFUSED = Counter("go2hooks_messages_refused_total", "Messages of ours that Kafka will not keep", ("topic",))
#: Webhooks in the replica, by state.
WEBHOOKS = Gauge("go2hooks_webhooks", "Webhooks in the replica, by state", ("state",))
#: Time since the replica last heard from Postgres.
REPLICA_AGE_SECONDS = Gauge("go2hooks_replica_age_seconds", "Time since the replica was last reconciled")

# Former names, for one release.
_REPLICA_AGE_FORMERLY = Gauge("go2hooks_live_copy_age_seconds", "Former name of go2hooks_replica_age_seconds")
_REPLICA_AGE_FORMERLY.read_from(REPLICA_AGE_SECONDS.values)
_ORPHANS_FORMERLY = Gauge("go2hooks_deliveries_stray", "Former name of go2hooks_deliveries_orphaned")
_ORPHANS_FORMERLY.read_from(ORPHANS.values)

_BOTH = (LAG_MESSAGES, LAG_SECONDS, PARTITIONS_ANEW, REFUSED, WEBHOOKS, REPLICA_AGE_SECONDS, _REPLICA_AGE_FORMERLY)
_ROUTER = (EVENTS, EVENTS_DEAD, EVENTS_MISPRINTED, DELIVERIES_CREATED, CROWDED, ROUTER_IN_FLIGHT)
_REPLAYER = (REPLAYS, REPLAY_READ, REPLAY_SENT, REPLAY_HELD_SECONDS)
_DISPATCHER = (
    ATTEMPTS, DELIVERIES_FINISHED, RETRIES, RETRY_DUE_IMPLAUSIBLE, DUPLICATES, DELIVERIES_DEAD, REQUEST_SECONDS, DELIVERY_SECONDS,
    DEFERRED_SECONDS, RETRY_LATENESS_SECONDS, IN_FLIGHT, QUEUED, OVERFLOWED, CIRCUITS_OPEN, CONNECTIONS,
    RECORD_SECONDS, RECORD_ROWS, RECORDS_SIMPLIFIED, UNFINISHED_SECONDS, WEBHOOKS_DISABLED, ORPHANS, _ORPHANS_FORMERLY,
)  # fmt: skip


class Instruments(Collector):
    """A collector of all these metrics."""

    def __init__(self, *instruments: Counter | Gauge | Histogram) -> None:
        self._instruments = instruments

    def collect(self) -> Iterable[Metric]:
        for instrument in self._instruments:
            yield from instrument.collect()


def service_registry(*instruments: Counter | Gauge | Histogram) -> CollectorRegistry:
    """A registry with these metrics and those of the process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(Instruments(BUILD_INFO, *instruments))
    return registry


def router_registry() -> CollectorRegistry:
    return service_registry(*_ROUTER, *_BOTH)


def replayer_registry() -> CollectorRegistry:
    return service_registry(*_REPLAYER)


def dispatcher_registry() -> CollectorRegistry:
    return service_registry(*_DISPATCHER, *_BOTH)
