"""Each endpoint's input and answers, declared once, for validating requests and for the OpenAPI document."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, Final, NamedTuple, TypeVar, get_type_hints

from flask import Response, request
from pydantic import BaseModel

from services.api.bodies import Body, Query, read_body, read_query
from services.api.idempotency import answer_once

View = Callable[..., Response]
_M = TypeVar("_M", bound=BaseModel)


class Returns(NamedTuple):
    """One successful answer: types of `data` and `meta`, from `shapes`."""

    data: Any
    status: int = 200
    meta: Any = None
    has_location: bool = False
    has_etag: bool = False
    may_retry: bool = False  #: whether Retry-After may come with it


@dataclass(frozen=True, slots=True)
class DeclaredOperation:
    """An endpoint as its callers see it. Most errors follow from its input; `errors` are the others.

    One that can fail with 412 takes If-Match, a GET whose answer has an ETag takes If-None-Match, a POST Idempotency-Key.
    """

    name: str
    summary: str
    description: str
    answers: tuple[Returns, ...]
    errors: tuple[int, ...]
    query: type[Query] | None
    body: type[Body] | None


#: Keys are the functions that Flask calls.
DECLARED: Final[dict[Callable[..., Any], DeclaredOperation]] = {}


def operation(summary: str, *answers: Returns, errors: tuple[int, ...] = ()) -> Callable[[View], View]:
    """Declare a view. It gets its query string as `query` and its body as `body`, if it has parameters of these names.

    Their annotations say how they are read: what is documented is what is enforced.
    """

    def declare(view: View) -> View:
        hints = get_type_hints(view)
        query, body = _model(hints.get("query"), Query), _model(hints.get("body"), Body)

        @wraps(view)
        def read_and_answer(**arguments: Any) -> Response:
            if query is not None:
                arguments["query"] = read_query(query)
            if body is not None:
                arguments["body"] = read_body(body)
            doing = partial(view, **arguments)
            return answer_once(doing) if request.method == "POST" else doing()

        description = inspect.getdoc(view) or ""
        DECLARED[read_and_answer] = DeclaredOperation(view.__name__, summary, description, answers, errors, query, body)
        return read_and_answer

    return declare


def _model(hint: Any, kind: type[_M]) -> type[_M] | None:
    return hint if isinstance(hint, type) and issubclass(hint, kind) else None
