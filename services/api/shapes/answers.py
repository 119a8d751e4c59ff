"""What every answer has: how a list goes on, and what went wrong."""

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from services.api.shapes.fields import described


@described
class PageMeta(TypedDict):
    """Where a page lies in its list."""

    page: int
    """This page's number, from 1."""
    perPage: int
    """How many items a page has at most."""
    total: int
    """How many items there are in all."""
    hasMore: bool
    """Whether there is another page."""


@described
class CursorMeta(TypedDict):
    """How to go on."""

    perPage: int
    """How many items a page has at most."""
    hasMore: bool
    """Whether there is more."""
    nextCursor: str | None
    """The next page's `cursor`; null on the last."""


@described
class ErrorBody(TypedDict):
    """What went wrong."""

    code: Annotated[str, Field(pattern="^[a-z_]+$")]
    """A word for programs."""
    message: str
    """A sentence for people."""
    details: dict[str, str]
    """What is wrong with each field at fault, by its name."""
