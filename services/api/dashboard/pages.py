"""The dashboard's pages; importing each module adds its own to the blueprint."""

from flask import Flask

from go2hooks.settings import Settings
from services.api.dashboard import (  # noqa: F401
    delivery_pages,
    operator_pages,
    replay_pages,
    sign_in,
    verify,
    webhook_form,
    webhook_pages,
)
from services.api.dashboard.blueprint import blueprint
from services.api.dashboard.session import register_sessions


def register(app: Flask, settings: Settings) -> None:
    """Add the pages to the API's app."""
    register_sessions(app, settings)
    app.register_blueprint(blueprint)
