"""How many connections a receiver serves at once, as far as it has shown.

A server whose workers serve one connection each (Apache's prefork, gunicorn's sync workers, Python's `HTTPServer`) answers
what it reads at once, on as many connections as it has workers. The kernel accepts the others, and what is written on them
is read when a worker is free: when another connection is closed. So:

- No connection should be opened while one that was opened is overtaken: it is still without an answer, though another was
  answered when it should have been.
- One that is without an answer for long is overdue and given room: another connection is closed. If it is answered then,
  the receiver has few workers: as many as the most connections that were answered on at once. No more should be opened.

Pure: time comes in as `now`, in seconds of any monotonic clock.
"""

from itertools import islice
from typing import Final

_TOLERATED: Final = 4  # of so many that are answered on, one may be overtaken: a packet was lost
_LONGER: Final = 4.0  # a first answer may take as many times as long as others: connecting takes three round trips more
_FADES: Final = 16  # answers until a slow one is forgotten by half, or so


class Opening:
    """A connection that is being opened, or has not been answered on yet."""

    __slots__ = ("began", "has_room")

    def __init__(self, began: float) -> None:
        self.began = began
        self.has_room = False  #: another connection was closed for it


class Serving:
    """Of one receiver."""

    __slots__ = ("_answered_at", "_answers_s", "_first_answers_s", "_unanswered", "answered", "is_few", "most")

    def __init__(self) -> None:
        self.answered = 0  #: open connections that have been answered on
        self.most = 0  #: the most that there were at once
        self.is_few = False  #: whether more are not served
        self._unanswered: dict[Opening, None] = {}  # the oldest first
        self._answered_at = 0.0  # the latest answer
        self._answers_s = 0.0  # what answers take lately, but for the first on each connection; 0: not known
        self._first_answers_s = float("inf")  # the shortest of these, which may have waited for a worker

    @property
    def has_unanswered(self) -> bool:
        return bool(self._unanswered)

    @property
    def is_unproven(self) -> bool:
        """Whether it has served one connection, and neither two at once nor shown that it does not."""
        return self.most == 1 and not self.is_few and not self._unanswered

    def begin(self, now: float) -> Opening:
        """A connection is being opened."""
        opening = Opening(now)
        self._unanswered[opening] = None
        return opening

    def first_answer(self, opening: Opening, now: float) -> None:
        """On a connection that stays open."""
        del self._unanswered[opening]
        self._answered_at = now
        self.answered += 1
        self.most = max(self.most, self.answered)
        self.is_few = self.is_few or opening.has_room
        self._first_answers_s = min(self._first_answers_s, now - opening.began)

    def answer(self, asked: float, now: float) -> None:
        """On a connection that was answered on before, to what was asked then."""
        self._answered_at = now
        took_s = now - asked
        if took_s > self._answers_s:
            self._answers_s = took_s
        else:
            self._answers_s += (took_s - self._answers_s) / _FADES

    def give_up(self, opening: Opening) -> None:
        """It could not be opened, or is gone: it was not answered on, or only once."""
        del self._unanswered[opening]

    def lose(self) -> None:
        """A connection that was answered on is gone."""
        self.answered -= 1

    def forget(self) -> None:
        """How many it serves was learnt too long ago."""
        self.is_few = False
        self.most = self.answered

    def may_open(self) -> bool:
        """Whether another connection is likely to be served."""
        if self.is_few and self.answered + len(self._unanswered) >= self.most:
            return False
        if not self.answered:
            return True
        opening = next(islice(self._unanswered, self.answered // _TOLERATED, None), None)
        return opening is None or not self.is_overtaken(opening)

    def overdue(self, now: float, patience_s: float) -> Opening | None:
        """The first that is without an answer for so long, and longer than is usual, and got no room.

        None while no connection is answered on.
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
        """Whether another one was answered when this should have been."""
        return self._answered_at > opening.began + self._usual_s

    @property
    def _usual_s(self) -> float:
        """What a first answer takes at most, where nothing is wrong."""
        return _LONGER * (self._answers_s or self._first_answers_s)
