"""Routers on a real broker, each in a group of its own."""

import secrets
from collections.abc import Callable, Iterator

import pytest
from routing import BOUNDS
from usable_topics import make_topics

from go2hooks.codec import EventCodec
from go2hooks.core.domain.matching import SubscriptionIndex
from go2hooks.core.domain.webhook import Webhook
from go2hooks.kafka.client import consumer_config, producer_config
from go2hooks.kafka.topics import TopicNames
from go2hooks.settings import Settings
from services.router.router import Router


@pytest.fixture(scope="module")
def settings(kafka_bootstrap: str) -> Settings:
    settings = Settings(kafka_bootstrap_servers=kafka_bootstrap)
    make_topics(settings)
    return settings


@pytest.fixture
def account() -> str:
    return f"acc_{secrets.token_hex(6)}"


@pytest.fixture
def group() -> str:
    return f"tests.{secrets.token_hex(6)}"


@pytest.fixture
def build(settings: Settings, group: str) -> Iterator[Callable[..., Router]]:
    routers: list[Router] = []

    def make(*webhooks: Webhook) -> Router:
        index = SubscriptionIndex()
        for each in webhooks:
            index.apply(each)
        routers.append(
            router := Router(
                consumer_config(settings, group),
                producer_config(settings),
                TopicNames(settings.kafka_prefix),
                index,
                EventCodec(),
                BOUNDS,
            )
        )
        router.start()
        return router

    yield make
    for router in routers:
        router.close(5.0)
