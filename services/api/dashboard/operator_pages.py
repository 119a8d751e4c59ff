"""Operators' pages: the state of the deployment, and its dead letters, of all accounts; for operators' keys alone."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from flask import flash, redirect, render_template, request, url_for

from go2hooks import __version__
from go2hooks.build import BUILD
from go2hooks.core.encoding.payload import format_timestamp
from go2hooks.core.errors import UnavailableError
from go2hooks.kafka.dead import DeadMessage, describe
from go2hooks.kafka.survey import RATE_S, Process, Survey, TopicFigures
from go2hooks.kafka.topics import delay_label
from go2hooks.postgres.audit import Actor
from services.api import operating
from services.api.answers import iso
from services.api.context import services
from services.api.dashboard import words
from services.api.dashboard.blueprint import blueprint
from services.api.dashboard.calls import PageError, Reply
from services.api.dashboard.session import key, operates
from services.api.operating import Operating

_KINDS: Final = "any(deliveries, events)"
_IN_FULL: Final = ("payload", "data")
LATE_S: Final = 30.0  #: older waiting messages are highlighted
_SAID_ELSEWHERE: Final = ("position", "buried", "sent back")


class RunningBuild(NamedTuple):
    """Processes of a service that run the same."""

    service: str
    version: str
    build: str
    processes: int
    hosts: list[str]
    partitions: int


class PipelineFigures(NamedTuple):
    """The pipeline's figures, in the order of processing. None for unknown ones."""

    events: TopicFigures
    routers: int
    deliveries: TopicFigures
    dispatchers: int
    tiers: list[tuple[str, TopicFigures]]
    overflow: TopicFigures
    dead: dict[str, int | None]  #: by kind


@blueprint.get("/operators")
def show_pipeline() -> str:
    return render_template("operators.html", **_figures(_operating()))


@blueprint.get("/operators/figures")
def show_figures() -> str:
    """The part of that page that the browser polls."""
    return render_template("operators_figures.html", **_figures(_operating()))


@blueprint.get(f"/operators/dead-letters/<{_KINDS}:kind>")
def list_dead_letters(kind: str) -> str:
    webhook = request.args.get("webhook", "").strip()
    box = _operating()
    with _waiting():
        found = box.find(kind, _of_webhook(webhook))
    return render_template(
        "operators_dead.html", kind=kind, webhook=webhook, letters=[_shown(letter, box) for letter in found.letters],
        more=found.more, newest=operating.NEWEST, at_once=operating.AT_ONCE,
    )  # fmt: skip


@blueprint.get(f"/operators/dead-letters/<{_KINDS}:kind>/<int:partition>/<int:offset>")
def show_dead_letter(kind: str, partition: int, offset: int) -> str:
    box, name = _operating(), f"{kind}/{partition}/{offset}"
    with _waiting():
        found = box.find(kind, lambda letter: letter.name == name, most=1)
    if not found.letters:
        raise _refusal(
            404, f"{name} is not among the newest {operating.NEWEST:,} (any more): go2hooks dead show {name}"
        )
    told = dict(describe(found.letters[0], box.codec))
    content = {title: _readable(text) for title, text in told.items() if title in _IN_FULL or title.endswith(" bytes")}
    facts = {title: text for title, text in told.items() if title not in {*content, *_SAID_ELSEWHERE}}
    return render_template(
        "operators_dead_letter.html", kind=kind, letter=_shown(found.letters[0], box), facts=facts, content=content,
        partition=partition, offset=offset,
    )  # fmt: skip


@blueprint.post(f"/operators/dead-letters/<{_KINDS}:kind>/<int:partition>/<int:offset>/send-back")
def send_back(kind: str, partition: int, offset: int) -> Any:
    name = f"{kind}/{partition}/{offset}"
    _send_back(kind, lambda letter: letter.name == name)
    return redirect(url_for("dashboard.list_dead_letters", kind=kind))


@blueprint.post("/operators/dead-letters/deliveries/send-back")
def send_back_of_webhook() -> Any:
    webhook = request.form.get("webhook", "").strip()
    if not webhook:
        raise _refusal(422, "Name the webhook whose dead letters are to be sent back.")
    _send_back("deliveries", _of_webhook(webhook))
    return redirect(url_for("dashboard.list_dead_letters", kind="deliveries", webhook=webhook))


def _send_back(kind: str, wanted: Callable[[DeadMessage], bool]) -> None:
    box, known = _operating(), key()
    actor = Actor("key", known.id, request.remote_addr)
    with _waiting():
        result = box.send_back(kind, wanted, (known.account_id, actor))
    told = (
        f"{result.sent:,} sent back." if result.sent or result.stuck else "Nothing was sent back: all of it was before."
    )
    if result.more:
        told += f" There are more: {operating.AT_ONCE:,} at most are sent at once."
    flash(told, "info")
    if result.stuck:
        flash(
            f"No way back, since their origin is unknown or they were too large to be kept: {', '.join(result.stuck[:20])}.",
            "fault",
        )


# --- who may


def _operating() -> Operating:
    """Raises NotFound for a key that is no operator's."""
    found = services().operating
    if found is None or not operates(key()):
        raise _refusal(404, "There is nothing at this address.")
    return found


@contextmanager
def _waiting() -> Iterator[None]:
    """Limits the threads that read Kafka's log at once; raises when Kafka does not answer."""
    with services().watching.taken_by(key().account_id) as has_place:
        if not has_place:
            raise _refusal(503, "Others look at dead letters at the moment: try again in a few seconds.")
        if not services().delivery_writer.is_reachable():
            raise _refusal(
                503, "Kafka does not answer, and the dead letters are there. Nothing was changed; try again."
            )
        try:
            yield
        except UnavailableError as error:
            raise _refusal(503, f"{error}") from error


def _refusal(status: int, message: str) -> PageError:
    return PageError(Reply(status, {"error": {"message": message, "details": {}}}))


# --- what is shown


def _figures(box: Operating) -> dict[str, Any]:
    kafka, postgres = box.kafka(), box.postgres()
    survey = kafka.survey
    return {
        "kafka": kafka,
        "postgres": postgres,
        "troubled": [(each, iso(each.since)) for each in postgres.troubled],
        "survey": survey,
        "age_s": None if survey is None else operating.age_s(survey),
        "pipeline": None if survey is None else _pipeline(survey, box),
        "builds": [
            *_builds(survey.processes if survey else ()),
            RunningBuild("API, this process", __version__, BUILD.kind, 1, [], 0),
        ],
        "minute_at": iso(postgres.minute.at) if postgres.minute else None,
        "rate_s": RATE_S,
        "late_s": LATE_S,
    }


def _pipeline(survey: Survey, box: Operating) -> PipelineFigures:
    topics, stages = box.topics, survey.stages
    running = Counter(process.service for process in survey.processes)
    delays = dict.fromkeys(services().settings.retry_delays)
    return PipelineFigures(
        _together([stages[topic] for topic in topics.events]),
        running["router"],
        stages[topics.deliveries],
        running["dispatcher"],
        [(delay_label(delay), stages[topics.retry(delay)]) for delay in delays],
        stages[topics.overflow],
        {"deliveries": survey.dead.get(topics.deliveries_dead), "events": survey.dead.get(topics.events_dead)},
    )


def _together(stages: list[TopicFigures]) -> TopicFigures:
    """The sum for several topics; None when one is unknown."""
    written, waiting, handled, late = zip(*stages, strict=True)
    return TopicFigures(_all(written, sum), _all(waiting, sum), _all(handled, sum), _all(late, max))


def _all(values: Iterable[Any], of: Callable[[Any], Any]) -> Any:
    known = list(values)
    return None if None in known else of(known)


def _builds(processes: Iterable[Process]) -> list[RunningBuild]:
    found: dict[tuple[str, str, str], list[Process]] = {}
    for each in processes:
        found.setdefault(each[:3], []).append(each)
    return [
        RunningBuild(*kind, len(same), sorted({each.host for each in same})[:5], sum(each.partitions for each in same))
        for kind, same in sorted(found.items(), reverse=True)
    ]


def _readable(text: str) -> str:
    """JSON with line breaks; other text unchanged."""
    try:
        return words.pretty(text) or text
    except ValueError:
        return text


def _of_webhook(webhook: str) -> Callable[[DeadMessage], bool]:
    """A predicate for deliveries of this webhook, or for all if none is named."""

    def has(letter: DeadMessage) -> bool:
        delivery = letter.delivery() if webhook else None
        return not webhook or (delivery is not None and delivery.webhook_id == webhook)

    return has


def _shown(letter: DeadMessage, box: Operating) -> dict[str, Any]:
    """A line of the list."""
    delivery, event = letter.delivery(), letter.event(box.codec)
    return {
        "name": letter.name,
        "partition": letter.position.partition,
        "offset": letter.position.offset,
        "at": format_timestamp(letter.time_ms),
        "reason": letter.reason,
        "detail": letter.detail,
        "account": delivery.account_id if delivery else event.account_id if event else None,
        "webhook": delivery.webhook_id if delivery else None,
        "event": delivery.event if delivery else str(event.type) if event else None,
        "id": delivery.id if delivery else event.id if event else None,
        "attempts": delivery.attempt if delivery else None,
        "sent_back": None if letter.sent_back_ms is None else format_timestamp(letter.sent_back_ms),
    }
