"""The control API: accounts manage their webhooks and look at their deliveries."""

from services.api.app import create_app

__all__ = ["create_app"]
