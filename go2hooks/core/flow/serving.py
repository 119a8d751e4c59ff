"""Estimates how many connections a receiver serves at once.

Some servers have workers that serve one connection each (Apache's prefork, gunicorn's sync workers, Python's
`HTTPServer`). Such a server answers on as many connections as it has workers. The kernel accepts further connections,
but requests on them are read only when a worker is free, that is, when another connection is closed. So:

- No connection should be opened while an open one is overtaken: it has no answer yet, although another connection was
  answered when this one should have been.
- A connection that has no answer for long is overdue, and another connection is closed to free a worker. If it is then
  answered, the receiver has few workers: as many as the most connections that it answered on at once. No more
  connections should be opened.

Pure: time comes in as `now`, in seconds of any monotonic clock.
"""

from itertools import islice
from typing import Final

_TOLERATED: Final = 4  # one of this many served connections may be overtaken, because a packet may be lost
_LONGER: Final = 4.0  # times a usual answer: a first answer takes up to three more round trips, to connect
_FADES: Final = 16  # weight 1/16 for each new answer: about half of a slow one is forgotten after 11 answers


class Opening:
    """A connection that is being opened, or has no answer yet."""

    __slots__ = ("began", "has_room")

    def __init__(self, began: float) -> None:
        self.began = began
        self.has_room = False  #: another connection was closed to free a worker for it


class Serving:
    """What is known about one receiver."""

    __slots__ = ("_answered_at", "_answers_s", "_first_answers_s", "_unanswered", "answered", "is_few", "most")

    def __init__(self) -> None:
        self.answered = 0  #: open connections that have had an answer
        self.most = 0  #: the most such connections at once
        self.is_few = False  #: whether the receiver has few workers: it serves no more than `most`
        self._unanswered: dict[Opening, None] = {}  # the oldest first
        self._answered_at = 0.0  # the latest answer
        self._answers_s = 0.0  # recent response time, without first answers; 0 if unknown
        self._first_answers_s = float("inf")  # the shortest first answer; others may have waited for a worker

    @property
    def has_unanswered(self) -> bool:
        return bool(self._unanswered)

    @property
    def is_unproven(self) -> bool:
        """Whether it has served one connection at a time, and it is unknown whether it can serve two."""
        return self.most == 1 and not self.is_few and not self._unanswered

    def begin(self, now: float) -> Opening:
        """A connection is being opened."""
        opening = Opening(now)
        self._unanswered[opening] = None
        return opening

    def first_answer(self, opening: Opening, now: float) -> None:
        """The first answer has arrived, on a connection that stays open."""
        del self._unanswered[opening]
        self._answered_at = now
        self.answered += 1
        self.most = max(self.most, self.answered)
        self.is_few = self.is_few or opening.has_room
        self._first_answers_s = min(self._first_answers_s, now - opening.began)

    def answer(self, asked: float, now: float) -> None:
        """A later answer has arrived, to a request that was sent at `asked`."""
        self._answered_at = now
        took_s = now - asked
        if took_s > self._answers_s:
            self._answers_s = took_s
        else:
            self._answers_s += (took_s - self._answers_s) / _FADES

    def give_up(self, opening: Opening) -> None:
        """The connection could not be opened, or is closed before it counted as answered."""
        del self._unanswered[opening]

    def lose(self) -> None:
        """A connection that had an answer is closed."""
        self.answered -= 1

    def forget(self) -> None:
        """The estimate is too old: start again from the connections that are open now."""
        self.is_few = False
        self.most = self.answered

    def may_open(self) -> bool:
        """Whether the receiver would probably serve another connection."""
        if self.is_few and self.answered + len(self._unanswered) >= self.most:
            return False
        if not self.answered:
            return True
        opening = next(islice(self._unanswered, self.answered // _TOLERATED, None), None)
        return opening is None or not self.is_overtaken(opening)

    def overdue(self, now: float, patience_s: float) -> Opening | None:
        """The oldest connection without an answer for `patience_s` and longer than usual that got no room yet.

        None while no connection has had an answer.
        """
        if not self.answered:
            return None
        latest = now - max(patience_s, self._usual_s)
        for opening in self._unanswered:
            if opening.began > latest:
                return None
            if not opening.has_room:
                return opening
        return None

    def is_overtaken(self, opening: Opening) -> bool:
        """Whether another connection was answered when this one should have been."""
        return self._answered_at > opening.began + self._usual_s

    @property
    def _usual_s(self) -> float:
        """The longest time of a first answer, in seconds, when nothing is wrong."""
        return _LONGER * (self._answers_s or self._first_answers_s)
