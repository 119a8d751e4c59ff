"""Settings of every process: its build, its drain, its logs, its metrics."""

from typing import Literal

from pydantic import Field, PositiveFloat

from go2hooks.settings.environment import Environment


class ProcessSettings(Environment):
    build: Literal["auto", "compiled", "plain"] = Field(
        "auto",
        description="which of our modules run: compiled where there are such of exactly these sources, else plain; or one of them",
    )
    drain_timeout_s: PositiveFloat = Field(25.0, description="from SIGTERM to exit at most, in seconds")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe line that is logged"
    )
    log_format: Literal["json", "text"] = Field("json", description="json for machines, text for people")
    metrics_host: str = Field("127.0.0.1", description="address that /metrics, /healthz and /readyz listen on")
    metrics_port: int = Field(
        9100, ge=0, le=65535, description="port of router's or dispatcher's /metrics; 0 takes a free one"
    )
