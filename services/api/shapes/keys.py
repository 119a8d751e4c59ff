"""API keys, as answers show them."""

from typing import Literal

from typing_extensions import TypedDict

from services.api.shapes.fields import KeyScope, Moment, described


@described
class ApiKey(TypedDict):
    """A key of the account, without itself."""

    id: str
    """`key_…`: names the key, and opens nothing."""
    name: str
    """What it is for."""
    scopes: list[KeyScope]
    """What it may do: `write` includes `read`, `admin` both."""
    expiresAt: Moment | None
    """Until when it is good; null: until it is deleted."""
    lastUsedAt: Moment | None
    """When it was last used, to a minute; null: never."""
    createdAt: Moment
    """When it was made."""


@described
class ApiKeyShown(ApiKey):
    """A new key, this once with itself."""

    key: str
    """What goes into the header Authorization; never shown again."""


@described
class DeletedKey(TypedDict):
    """A key that opens nothing any more."""

    id: str
    """The key's id."""
    deleted: Literal[True]
    """Always true."""
