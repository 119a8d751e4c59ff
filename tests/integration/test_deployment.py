"""Two deployments on one cluster: whoever meets topics of another says so, begins nothing and commits nothing."""

import json

import psycopg
import pytest
from click.testing import CliRunner
from usable_topics import make_topics
from waiting import eventually

from go2hooks.cli import main
from go2hooks.core.domain.delivery import Delivery, Kind
from go2hooks.core.errors import UnavailableError
from go2hooks.kafka.deployment import adopt, claim, read_claims
from go2hooks.postgres.deployment import find_deployment
from go2hooks.settings import load_settings
from services.api.outbox import KafkaDeliveryWriter

DELIVERY = Delivery("dlv_1", "wh_1", "acme", "evt_1", "click", "", b"{}", 1, 0, Kind.EVENT, 0, suspect=False)


@pytest.fixture
def settings(kafka_bootstrap, database_url, secret_key, request):
    """Topics of the test's own."""
    prefix = f"shared{abs(hash(request.node.name)) % 10**8}"
    settings = load_settings(
        kafka_bootstrap_servers=kafka_bootstrap, kafka_prefix=prefix, database_url=database_url, secret_keys=secret_key,
        topic_partitions=1, retry_delays="200ms",
    )  # fmt: skip
    make_topics(settings)
    return settings


def variables(settings):
    return {
        "GO2HOOKS_KAFKA_PREFIX": settings.kafka_prefix,
        "GO2HOOKS_RETRY_DELAYS": "200ms",
        "GO2HOOKS_TOPIC_PARTITIONS": "1",
    }


def test_the_first_who_claims_the_topics_has_them_until_they_are_adopted(settings):
    assert claim(settings, "dep_first").owner == "dep_first"
    assert claim(settings, "dep_second").owner == "dep_first"
    assert adopt(settings, "dep_second") == "dep_first"
    assert read_claims(settings) == ("dep_second", frozenset({"dep_first"}))
    assert adopt(settings, "dep_second") is None
    assert claim(settings, "dep_first").owner == "dep_second"


def test_services_of_another_deployment_are_not_ready_say_why_and_read_nothing(settings, run_service, monkeypatch):
    """Until the operator says that this database replaces that one."""
    claim(settings, "dep_theirs")
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        ours = find_deployment(connection)
    said = f"belong to the deployment dep_theirs, and this database is {ours}"
    logs = [run_service(name, wait=False, **variables(settings)) for name in ("router", "dispatcher")]
    eventually(lambda: all(said in log.read_text() for log in logs))
    with pytest.raises(UnavailableError, match=said):
        KafkaDeliveryWriter(settings, lambda: ours).write(DELIVERY)

    for name in ("kafka_bootstrap_servers", "kafka_prefix"):
        monkeypatch.setenv(f"GO2HOOKS_{name.upper()}", getattr(settings, name))
    monkeypatch.setenv("GO2HOOKS_DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setenv("GO2HOOKS_RETRY_DELAYS", "200ms")
    monkeypatch.setenv("GO2HOOKS_TOPIC_PARTITIONS", "1")
    assert said in " ".join(CliRunner().invoke(main, ["doctor"]).output.split())
    assert "would be" in CliRunner().invoke(main, ["topics", "adopt"]).output
    adopted = CliRunner().invoke(main, ["topics", "adopt", "--yes"])
    assert (adopted.exit_code, adopted.output) == (0, f"The topics were dep_theirs's and are {ours}'s now.\n")
    ports = [
        json.loads(line)["metrics_port"]
        for log in logs
        for line in log.read_text().splitlines()
        if '"metrics_port"' in line
    ]
    eventually(lambda: all(is_ready(port) for port in ports))


def is_ready(port):
    from urllib.request import urlopen

    try:
        return urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).status == 200
    except OSError:
        return False
