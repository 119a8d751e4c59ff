"""Kafka and PostgreSQL in containers, of the images and the settings that docker-compose.yml runs them with."""

import secrets
from pathlib import Path
from typing import Any

import yaml
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from go2hooks.devstack.processes import free_port

SERVICES: dict[str, Any] = yaml.safe_load((Path(__file__).parent.parent / "docker-compose.yml").read_text())["services"]


def kafka_container() -> tuple[DockerContainer, str]:
    """Not started, and its `host:port`: chosen before, since Kafka has to tell its clients where it is found."""
    kafka, port = SERVICES["kafka"], free_port()
    address = f"127.0.0.1:{port}"
    settings = {key: str(value) for key, value in kafka["environment"].items()}
    container = DockerContainer(kafka["image"]).with_bind_ports(9092, port).with_envs(**settings)
    container.with_env("KAFKA_ADVERTISED_LISTENERS", f"PLAINTEXT://{address}")
    return container.waiting_for(LogMessageWaitStrategy("Kafka Server started").with_startup_timeout(120)), address


def postgres_container() -> PostgresContainer:
    """Not started. What a crash of the machine would lose is lost on purpose."""
    password = secrets.token_urlsafe(24)  # tests look for it where it must not be
    container = PostgresContainer(SERVICES["postgres"]["image"], username="postgres", password=password, driver=None)
    return container.with_command(
        "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=200"
    )
