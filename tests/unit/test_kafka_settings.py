"""How Kafka is reached: what belongs together is asked for together, and what keeps our promises cannot be changed."""

from pathlib import Path

import pytest

from go2hooks.core.errors import SettingsError
from go2hooks.kafka.client import GroupNames, connection_config, consumer_config, producer_config
from go2hooks.kafka.topics import TopicNames
from go2hooks.settings import load_kafka_settings, load_settings

SCRAM = {
    "kafka_security_protocol": "SASL_SSL",
    "kafka_sasl_mechanism": "scram-sha-512",
    "kafka_sasl_username": "go2",
    "kafka_sasl_password": "opensesame",
}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kafka_sasl_username": "go2"}, "GO2HOOKS_KAFKA_SECURITY_PROTOCOL=sasl_ssl"),
        ({"kafka_security_protocol": "sasl_ssl"}, "GO2HOOKS_KAFKA_SASL_MECHANISM is missing"),
        (SCRAM | {"kafka_sasl_password": None}, "needs GO2HOOKS_KAFKA_SASL_USERNAME and GO2HOOKS_KAFKA_SASL_PASSWORD"),
        (SCRAM | {"kafka_sasl_mechanism": "GSSAPI"}, "GO2HOOKS_KAFKA_SASL_MECHANISM: Input should be 'PLAIN'"),
        (SCRAM | {"kafka_sasl_mechanism": "OAUTHBEARER"}, "sasl.oauthbearer.token.endpoint.url"),
        ({"kafka_security_protocol": "ssl", "kafka_ssl_key_file": __file__}, "belong together"),
        ({"kafka_ssl_ca_file": __file__}, "need GO2HOOKS_KAFKA_SECURITY_PROTOCOL=ssl"),
        ({"kafka_security_protocol": "ssl", "kafka_ssl_ca_file": "/nowhere.pem"}, "GO2HOOKS_KAFKA_SSL_CA_FILE: "),
        ({"kafka_prefix": "go 2"}, "GO2HOOKS_KAFKA_PREFIX"),
        ({"kafka_properties": "acks=1"}, "acks may not be changed: a message counts as kept when"),
        ({"kafka_properties": "enable.auto.commit=true"}, "an offset is committed when"),
        ({"kafka_properties": "bootstrap.servers=x:1"}, "bootstrap.servers is set by GO2HOOKS_KAFKA_BOOTSTRAP_SERVERS"),
        ({"kafka_properties": "socket.keepalive.enable=true;sesame"}, "part 2 is not name=value"),
    ],
)  # fmt: skip
def test_what_is_half_said_or_breaks_a_promise_is_refused_by_its_variable(given, said):
    with pytest.raises(SettingsError) as refused:
        load_kafka_settings(**given)
    assert said in str(refused.value)
    assert "sesame" not in str(refused.value)


def test_every_client_gets_the_login_and_the_further_properties():
    settings = load_settings(**SCRAM, kafka_properties="socket.keepalive.enable=true\nclient.rack = eu-1a;")
    for config in (
        connection_config(settings, "admin"), consumer_config(settings, "group"), producer_config(settings),
    ):  # fmt: skip
        assert config["security.protocol"] == "sasl_ssl"
        assert config["sasl.mechanism"] == "SCRAM-SHA-512"
        assert (config["sasl.username"], config["sasl.password"]) == ("go2", "opensesame")
        assert (config["socket.keepalive.enable"], config["client.rack"]) == ("true", "eu-1a")
        assert config["client.id"].startswith("go2hooks-")
    assert "opensesame" not in repr(settings)


def test_a_secret_may_be_named_by_a_file(monkeypatch, tmp_path: Path):
    (tmp_path / "password").write_text("opensesame\n")
    monkeypatch.setenv("GO2HOOKS_KAFKA_SASL_PASSWORD_FILE", str(tmp_path / "password"))
    settings = load_settings(**{name: value for name, value in SCRAM.items() if name != "kafka_sasl_password"})
    assert settings.kafka_sasl_password.get_secret_value() == "opensesame"


@pytest.mark.parametrize("name", ["DATABASE_URL", "SECRET_KEYS", "KAFKA_SASL_PASSWORD", "KAFKA_PROPERTIES"])
def test_a_secret_that_is_given_twice_or_cannot_be_read_is_refused_by_its_variable(monkeypatch, tmp_path: Path, name):
    monkeypatch.setenv(f"GO2HOOKS_{name}_FILE", str(tmp_path / "nowhere"))
    with pytest.raises(SettingsError, match=f"GO2HOOKS_{name}_FILE: .*cannot be read: No such file"):
        load_settings()
    monkeypatch.setenv(f"GO2HOOKS_{name}", "opensesame")
    with pytest.raises(SettingsError, match=f"GO2HOOKS_{name} and GO2HOOKS_{name}_FILE are both set"):
        load_settings()


def test_topics_and_groups_of_two_deployments_have_nothing_in_common():
    ours, theirs = (
        {
            *(names := TopicNames(prefix)).events, *names.tiers((5.0, 30.0)), names.events_dead, names.deliveries,
            names.overflow, names.deliveries_dead, *vars(GroupNames(prefix)).values(),
        }
        for prefix in ("go2", "blue")
    )  # fmt: skip
    assert "go2.events.click" in ours
    assert "go2hooks.dispatcher.retry" in ours
    assert "blue.deliveries.retry.5s" in theirs
    assert "bluehooks.router" in theirs
    assert not ours & theirs


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"kafka_properties": "foo.bar=1"},
            'No such configuration property: "foo.bar". Check GO2HOOKS_KAFKA_PROPERTIES',
        ),
        ({"kafka_properties": "socket.timeout.ms=soon"}, "socket.timeout.ms"),
        (
            {
                "kafka_security_protocol": "sasl_ssl",
                "kafka_sasl_mechanism": "OAUTHBEARER",
                "kafka_properties": "sasl.oauthbearer.token.endpoint.url=http://127.0.0.1:1/",
            },
            "`sasl.oauthbearer.client.id` is mandatory",
        ),
    ],
    ids=["no such property", "no number", "half of OIDC"],
)
def test_what_librdkafka_refuses_is_a_setting_that_is_wrong(settings, said):
    with pytest.raises(SettingsError) as refused:
        connection_config(load_kafka_settings(**settings), "test")
    assert said in str(refused.value)
