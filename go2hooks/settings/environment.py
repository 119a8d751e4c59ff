"""How settings are read: `GO2HOOKS_*` variables, and for each secret one `GO2HOOKS_*_FILE` that names a file holding it.

Kubernetes and Docker provide secrets as files; a variable is visible in `docker inspect` and to child processes.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from pydantic import BeforeValidator, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from go2hooks.core.errors import SettingsError

PREFIX: Final = "GO2HOOKS_"
T = TypeVar("T")


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"{PREFIX}{name.upper()}"


def file_variable(name: str) -> str:
    """The variable that names the file of a secret setting."""
    return f"{variable(name)}_FILE"


def given_variable(name: str) -> str:
    """The variable that a setting was read from, for messages that say what to correct."""
    return file_variable(name) if os.environ.get(file_variable(name)) else variable(name)


def is_given(name: str) -> bool:
    """Whether the environment sets this setting, itself or by a file."""
    return bool(os.environ.get(variable(name)) or os.environ.get(file_variable(name)))


def is_secret(field: FieldInfo) -> bool:
    """Whether a setting holds a secret: its type is SecretStr, optional, or a tuple of them."""
    return SecretStr.__name__ in str(field.annotation)


def split_list(value: Any) -> Any:
    """Split a comma separated value; a value that is no string is returned unchanged."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


CommaSeparated = Annotated[tuple[T, ...], NoDecode, BeforeValidator(split_list)]


def read_secret_file(name: str, path: str) -> str:
    """The secret, without the line break that editors put at a file's end. Raises SettingsError that names the variable."""
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SettingsError(f"{file_variable(name)}: {path} cannot be read: {why}") from error


class Environment(BaseSettings):
    """Base of every group of settings. Frozen; the environment is read once, at start.

    `Settings` inherits all groups, so no two of them may give a field or a validator the same name.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", allow_inf_nan=False)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # there is no such file
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # files are named one by one
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _SecretFiles(settings_cls)


class _SecretFiles(PydanticBaseSettingsSource):
    """The files that `GO2HOOKS_*_FILE` variables name."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        path = os.environ.get(file_variable(field_name)) if is_secret(field) else None
        if not path:
            return None, field_name, False
        if os.environ.get(variable(field_name)):
            raise SettingsError(f"{variable(field_name)} and {file_variable(field_name)} are both set: leave one out")
        return read_secret_file(field_name, path), field_name, False

    def __call__(self) -> dict[str, Any]:
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}
