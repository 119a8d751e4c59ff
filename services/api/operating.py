"""The operators' figures of the whole deployment, and their actions on dead letters.

Figures are queried on request, and shared by all viewers. Callers check the rights.
"""

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import psycopg

from go2hooks.codec import EventCodec
from go2hooks.core.errors import UnavailableError
from go2hooks.kafka.dead import DeadMessage, WayBack, dead_topic, read_dead
from go2hooks.kafka.reading import LogReader
from go2hooks.kafka.survey import Survey, Surveyor
from go2hooks.kafka.topics import TopicNames
from go2hooks.postgres import audit, rollups, webhooks
from go2hooks.postgres.attempts.standings import last_attempt
from go2hooks.postgres.audit import Action, Actor, Change, differences
from go2hooks.postgres.away import explain
from go2hooks.postgres.pool import Pool
from go2hooks.postgres.rollups import Minute
from go2hooks.postgres.webhooks import Troubled, WebhookCounts
from go2hooks.settings import Settings
from services.api.shared import Shared

_KAFKA_FRESH_S: Final = 2.0
NEWEST: Final = 1000  #: newest messages of a dead-letter topic that pages read
AT_ONCE: Final = 200  #: dead letters that one request sends back at most
_RATE_OVER_S: Final = 10.0


class KafkaFigures(NamedTuple):
    """Kafka's latest figures."""

    survey: Survey | None  #: None until the first answer
    handled_per_s: float | None  #: deliveries that dispatchers finished; None until the second answer
    fault: str | None  #: why it says nothing now


class PostgresFigures(NamedTuple):
    """Postgres' latest figures; None where a query took too long."""

    minute: Minute | None
    counts: WebhookCounts | None
    troubled: list[Troubled]
    fault: str | None


class FoundLetters(NamedTuple):
    """Dead letters, newest first."""

    letters: list[DeadMessage]
    more: bool  #: whether there are more


class SentBack(NamedTuple):
    """The result of sending dead letters back."""

    sent: int
    stuck: list[str]  #: names of those whose origin is unknown
    more: bool  #: whether others are left


class Operating:
    """Safe to share between threads."""

    def __init__(self, settings: Settings, pool: Pool) -> None:
        """Opens nothing yet."""
        self._settings = settings
        self._pool = pool
        self._surveyor = Surveyor(settings)
        self._surveys: deque[Survey] = deque(maxlen=round(_RATE_OVER_S / _KAFKA_FRESH_S))
        self._kafka = Shared(self._ask_kafka, _KAFKA_FRESH_S)
        self._postgres = Shared(self._ask_postgres, 5.0)  # its figures are of a minute
        self.codec: Final = EventCodec(settings.schema_dir)
        self.topics: Final = TopicNames(settings.kafka_prefix)

    def kafka(self) -> KafkaFigures:
        """Blocks for two seconds at most."""
        return self._kafka.get()

    def postgres(self) -> PostgresFigures:
        """Blocks for a few seconds at most."""
        return self._postgres.get()

    def close(self) -> None:
        self._surveyor.close()

    def _ask_kafka(self) -> KafkaFigures:
        last = self._surveys[-1] if self._surveys else None
        try:
            survey = self._surveyor.look()
        except UnavailableError as error:
            return KafkaFigures(last, None, str(error))
        earlier = next((each for each in self._surveys if survey.at - each.at <= 2 * _RATE_OVER_S), None)
        self._surveys.append(survey)
        return KafkaFigures(survey, earlier and self._handled_per_s(earlier, survey), None)

    def _handled_per_s(self, earlier: Survey, later: Survey) -> float | None:
        counts = [[each.stages[topic].handled for topic in self._delivering(each)] for each in (earlier, later)]
        if any(count is None for count in itertools.chain(*counts)):
            return None
        before, after = (sum(count or 0 for count in each) for each in counts)
        return max(0.0, (after - before) / (later.at - earlier.at))

    def _delivering(self, survey: Survey) -> list[str]:
        return [topic for topic in survey.stages if topic not in self.topics.events]

    def _ask_postgres(self) -> PostgresFigures:
        try:
            return PostgresFigures(
                self._query(lambda conn: rollups.last_minute(conn, datetime.now(UTC))),
                self._query(webhooks.counts_by_state),
                self._query(lambda conn: webhooks.troubled(conn, 50)) or [],
                None,
            )
        except psycopg.Error as error:
            return PostgresFigures(None, None, [], f"Postgres does not answer: {explain(error)}.")

    def _query(self, question: Callable[[Any], Any]) -> Any:
        """The query's result; None when it takes longer than a second."""
        try:
            with self._pool.transaction() as conn:
                conn.execute("SELECT set_config('statement_timeout', %s, true)", ["1000"])
                return question(conn)
        except psycopg.errors.QueryCanceled:
            return None

    # --- dead letters

    def find(self, kind: str, wanted: Callable[[DeadMessage], bool], most: int = 100) -> FoundLetters:
        """The newest wanted ones among the last NEWEST messages. Blocks for some seconds at most. Raises UnavailableError."""
        with self._letters(kind) as letters:
            newest = deque(filter(wanted, letters), maxlen=most + 1)
        found = list(reversed(newest))
        return FoundLetters(found[:most], len(found) > most)

    def send_back(self, kind: str, wanted: Callable[[DeadMessage], bool], operator: tuple[str, Actor]) -> SentBack:
        """Send back the oldest AT_ONCE wanted ones that were not sent back before: `operator` is the account and the actor.

        They are written to the audit log first. Blocks for some seconds at most, or until Kafka takes nothing
        for five. Raises UnavailableError.
        """
        with self._letters(kind) as letters:
            waiting = (letter for letter in letters if letter.sent_back_ms is None and wanted(letter))
            chosen = list(itertools.islice(waiting, AT_ONCE + 1))
        more = len(chosen) > AT_ONCE
        chosen = chosen[:AT_ONCE]
        if not chosen:
            return SentBack(0, [], more=False)
        self._note(chosen, operator)
        stuck = list(self._send(chosen))
        return SentBack(len(chosen) - len(stuck), stuck, more)

    def _note(self, chosen: Iterable[DeadMessage], operator: tuple[str, Actor]) -> None:
        account_id, actor = operator
        told = differences({}, {"positions": [letter.name for letter in chosen]})
        with self._pool.transaction() as conn:
            audit.record(conn, actor, Change(account_id, Action.DEAD_LETTERS_SENT_BACK, told))

    def _send(self, chosen: Iterable[DeadMessage]) -> Iterator[str]:
        """Send these; yields the names of those that cannot be sent back."""
        with self._pool.transaction() as conn:
            way = WayBack(self._settings, lambda delivery: last_attempt(conn, delivery), 5.0)
            for letter in chosen:
                if way.send(letter) is None:
                    yield letter.name

    @contextmanager
    def _letters(self, kind: str) -> Iterator[Iterator[DeadMessage]]:
        topic = dead_topic(kind, self._settings.kafka_prefix)
        with LogReader(self._settings, 3.0) as reader:
            yield read_dead(reader, topic, newest=NEWEST)


def age_s(survey: Survey) -> float:
    """The survey's age, in seconds."""
    return max(0.0, time.time() - survey.at)
