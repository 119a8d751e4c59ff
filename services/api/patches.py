"""What PATCH takes: some fields, as JSON merge patch (RFC 7396) has it; or all that GET shows, some of them changed."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Self

from pydantic import ModelWrapValidatorHandler, PrivateAttr, model_validator

from services.api.bodies import Body
from services.api.errors import invalid

_WHY: Final = "is read-only: leave it out, or send it as it is shown"


class Patch(Body):
    """A body that may hold read-only fields, unchanged."""

    media_types = ("application/json", "application/merge-patch+json")
    shows: ClassVar[frozenset[str]] = frozenset()  #: every field that an answer may show
    _sent_back: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _set_aside(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Keep read-only fields for `check_read_only`, which compares them with the stored ones."""
        if not value:
            raise ValueError("name at least one field to change")
        read_only = cls.shows - {field.alias or name for name, field in cls.model_fields.items()}
        body = handler({name: each for name, each in value.items() if name not in read_only})
        body._sent_back.update((name, each) for name, each in value.items() if name in read_only)  # noqa: SLF001
        return body

    def check_read_only(self, shown: Mapping[str, Any]) -> None:
        """Raises ApiError 422 unless read-only fields are as shown."""
        changed = [name for name, each in self._sent_back.items() if name not in shown or shown[name] != each]
        if changed:
            raise invalid(dict.fromkeys(changed, _WHY))
