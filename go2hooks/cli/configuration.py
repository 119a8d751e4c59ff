"""`go2hooks config`."""

from typing import Any

import click


@click.command()
def config() -> None:
    """List every setting: variable, value, default and meaning. Secrets are masked."""
    from rich.console import Console
    from rich.table import Table

    from go2hooks.settings import Settings, load_settings

    settings = load_settings()
    table = Table("variable", "value", "default", "meaning")
    for name, field in Settings.model_fields.items():
        value, default = _show(getattr(settings, name)), _show(field.default)
        shown = f"[bold]{value}[/]" if name in settings.model_fields_set else value
        table.add_row(f"GO2HOOKS_{name.upper()}", shown, default, field.description or "")
    console = Console()
    if not console.is_terminal:
        console.width = 400  # a pipe has no width: each row stays on one line
    console.print(table)


def _show(value: Any) -> str:
    """The value as its variable is written, with brackets escaped for rich."""
    from pydantic import SecretStr
    from rich.markup import escape

    from go2hooks.kafka.topics import delay_label
    from go2hooks.telemetry.logs import mask

    match value:
        case None | ():
            return ""
        case bool():
            return str(value).lower()
        case SecretStr():
            text = value.get_secret_value()
            return escape(mask(text)) if "://" in text else "***"
        case tuple():
            return ",".join(delay_label(part) if isinstance(part, float) else _show(part) for part in value)
        case float():
            return f"{value:g}"
        case _:
            return escape(str(value))
