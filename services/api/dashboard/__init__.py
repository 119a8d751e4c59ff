"""The dashboard: pages made from the REST resources' answers. Server-rendered; works without JavaScript."""

from services.api.dashboard.pages import register

__all__ = ["register"]
