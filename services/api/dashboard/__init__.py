"""The dashboard: pages for people, of what the REST resources answer. Server-rendered; works without JavaScript."""

from services.api.dashboard.pages import register

__all__ = ["register"]
