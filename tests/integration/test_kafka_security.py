"""A Kafka that asks for TLS, a login or a certificate: every client of ours gets in, and who does not is told why."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest
import trustme
from click.testing import CliRunner
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from token_issuer import AUDIENCE, CLIENT, issuing
from token_issuer import SECRET as TOKEN_SECRET
from usable_topics import make_topics
from waiting import eventually

from go2hooks.cli import main
from go2hooks.core.errors import UnavailableError
from go2hooks.devstack.broker import Broker
from go2hooks.devstack.processes import free_port
from go2hooks.devstack.quorum import open_quorum
from go2hooks.devstack.security import open_security
from go2hooks.kafka.admin import admin_client, ensure_topics
from go2hooks.kafka.client import connection_config
from go2hooks.kafka.diagnosis import why_away
from go2hooks.kafka.reading import LogReader
from go2hooks.kafka.rights import Principal, rights
from go2hooks.kafka.topics import TopicNames
from go2hooks.postgres.webhooks import NewWebhook, create
from go2hooks.settings import load_kafka_settings, load_settings

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
CLICKS = TopicNames("go2").of_event["click"]


@pytest.fixture(scope="module")
def security(servers_dir):
    return open_security(servers_dir / "security")


@pytest.fixture(scope="module")
def mutual_port():
    return free_port()


@pytest.fixture(scope="module")
def oauth_port():
    return free_port()


@pytest.fixture(scope="module")
def issuer(servers_dir):
    with issuing(servers_dir) as issuer:
        yield issuer


@pytest.fixture(scope="module")
def broker(servers_dir, security, mutual_port, oauth_port, issuer):
    """Listeners that ask for a password, for a certificate and for a token. Nobody but its own users may do anything."""
    quorum = open_quorum(servers_dir / "secure-kafka", 1)
    (node,) = quorum.nodes
    listeners = f"CLIENT://{node.address},MUTUAL://127.0.0.1:{mutual_port},TOKEN://127.0.0.1:{oauth_port}"
    oauth = "org.apache.kafka.common.security.oauthbearer"
    settings = {
        "listeners": f"{listeners},CONTROLLER://127.0.0.1:{node.controller_port}",
        "advertised.listeners": listeners,
        "listener.security.protocol.map": "CLIENT:SASL_SSL,MUTUAL:SSL,TOKEN:SASL_SSL,CONTROLLER:SSL",
        "listener.name.token.sasl.enabled.mechanisms": "OAUTHBEARER",
        "listener.name.token.oauthbearer.sasl.jaas.config": f"{oauth}.OAuthBearerLoginModule required;",
        "listener.name.token.oauthbearer.sasl.server.callback.handler.class": f"{oauth}.OAuthBearerValidatorCallbackHandler",
        "sasl.oauthbearer.jwks.endpoint.url": issuer.jwks.as_uri(),
        "sasl.oauthbearer.expected.audience": AUDIENCE,
        "listener.name.mutual.ssl.client.auth": "required",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:go2hooks;User:CN=Go2 Webhooks development broker;User:{CLIENT}",
    }
    jvm = (f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={issuer.jwks.as_uri()}",)
    with Broker(
        quorum.directory, jvm_options=jvm, quorum=quorum, node=node, security=security, settings=settings
    ) as broker:
        yield broker


@pytest.fixture(scope="module")
def known(broker, security):
    """By which a client of ours gets in, as settings."""
    known = security.client_settings() | {"kafka_bootstrap_servers": broker.bootstrap}
    make_topics(load_settings(**known))
    return known


def without_tls(known, **changes):
    return {name: value for name, value in known.items() if name != "kafka_ssl_ca_file"} | changes


def why(**settings):
    return why_away(connection_config(load_kafka_settings(**settings), "test"))


def test_whoever_does_not_get_in_is_told_what_to_set(known, kafka_bootstrap, docker, tmp_path):
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    tls = {"kafka_security_protocol": "ssl", "kafka_ssl_ca_file": known["kafka_ssl_ca_file"]}
    at = {"kafka_bootstrap_servers": known["kafka_bootstrap_servers"]}
    for settings, said in (
        (known | {"kafka_sasl_password": "wrong"}, "refuses the user or the password: check GO2HOOKS_KAFKA_SASL_USER"),
        (known | {"kafka_sasl_mechanism": "PLAIN"}, "set GO2HOOKS_KAFKA_SASL_MECHANISM to one of SCRAM-SHA-512"),
        (known | {"kafka_ssl_ca_file": tmp_path / "other.pem"}, "name its CA in GO2HOOKS_KAFKA_SSL_CA_FILE"),
        (at, "speaks TLS: set GO2HOOKS_KAFKA_SECURITY_PROTOCOL to ssl or sasl_ssl"),
        (without_tls(known, kafka_security_protocol="sasl_plaintext"), "speaks TLS: set"),
        (at | tls, "may ask for a user and a password (GO2HOOKS_KAFKA_SECURITY_PROTOCOL"),
        (known | {"kafka_bootstrap_servers": kafka_bootstrap}, "does not speak TLS"),
        (
            without_tls(known, kafka_security_protocol="sasl_plaintext", kafka_bootstrap_servers=kafka_bootstrap),
            "asks for no login: set GO2HOOKS_KAFKA_SECURITY_PROTOCOL to plaintext or ssl",
        ),
        ({"kafka_bootstrap_servers": f"127.0.0.1:{free_port()}"}, "does not answer: Connection refused. Start it"),
    ):
        began = time.monotonic()
        answer = why(**settings)
        assert said in answer, answer
        assert "wrong" not in answer
        assert time.monotonic() - began < 15


def test_a_certificate_that_is_over_or_for_another_name_is_told_apart(known, tmp_path):
    """Before librdkafka, at the handshake: it says the same for all of them."""
    import ssl
    import threading
    from datetime import UTC, datetime, timedelta
    from socketserver import BaseRequestHandler, ThreadingTCPServer

    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    yesterday = datetime.now(UTC) - timedelta(days=1)
    over = authority.issue_cert("127.0.0.1", not_before=yesterday - timedelta(days=1), not_after=yesterday)
    for certificate, said in (
        (over, "has expired: renew it at the broker"),
        (authority.issue_cert("kafka.example"), "for another name than 127.0.0.1"),
    ):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        with ThreadingTCPServer(("127.0.0.1", 0), BaseRequestHandler) as server:
            server.socket = context.wrap_socket(server.socket, server_side=True)
            server.handle_error = lambda *_: None
            threading.Thread(target=server.serve_forever, daemon=True).start()
            address = f"127.0.0.1:{server.server_address[1]}"
            known_here = {"kafka_security_protocol": "ssl", "kafka_ssl_ca_file": tmp_path / "ca.pem"}
            assert said in why(kafka_bootstrap_servers=address, **known_here)
            server.shutdown()


def test_doctor_topics_and_emit_name_the_wrong_password(known, database_url, monkeypatch):
    for name, value in (known | {"kafka_sasl_password": "wrong", "database_url": database_url}).items():
        monkeypatch.setenv(f"GO2HOOKS_{name.upper()}", str(value))
    for command in (["doctor"], ["topics"], ["dead", "list", "events"]):
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 1
        said = " ".join((done.output + str(done.exception)).split())
        assert "refuses the user or the password" in said, said
        assert "wrong" not in said.replace("what is wrong", "")


def test_with_a_client_certificate_topics_are_made_and_logs_read(broker, known, security, mutual_port):
    certified = {
        "kafka_bootstrap_servers": f"127.0.0.1:{mutual_port}",
        "kafka_security_protocol": "ssl",
        "kafka_ssl_ca_file": security.ca_file,
        "kafka_ssl_certificate_file": security.keystore,
        "kafka_ssl_key_file": security.keystore,
    }
    settings = load_settings(**certified)
    assert not ensure_topics(settings).created
    with LogReader(settings) as reader:
        assert reader.ends(reader.partitions([CLICKS]))
    nobody = {name: certified[name] for name in list(certified)[:3]}
    with pytest.raises(UnavailableError, match="client certificate"):
        ensure_topics(load_settings(**nobody))


def test_with_a_token_of_an_identity_provider_topics_are_made_and_logs_read(
    broker, known, security, oauth_port, issuer
):
    """OAUTHBEARER: librdkafka fetches the token by OIDC, with the properties that are its own."""
    client = f"sasl.oauthbearer.client.id={CLIENT}"
    endpoint = f"sasl.oauthbearer.token.endpoint.url={issuer.url}"
    granted = {
        "kafka_bootstrap_servers": f"127.0.0.1:{oauth_port}",
        "kafka_security_protocol": "sasl_ssl",
        "kafka_sasl_mechanism": "OAUTHBEARER",
        "kafka_ssl_ca_file": security.ca_file,
        "kafka_properties": f"{endpoint};{client};sasl.oauthbearer.client.secret={TOKEN_SECRET}",
    }
    settings = load_settings(**granted)
    assert not ensure_topics(settings).created
    with LogReader(settings) as reader:
        assert reader.ends(reader.partitions([CLICKS]))
    unknown = granted | {"kafka_properties": f"{endpoint};{client};sasl.oauthbearer.client.secret=wrong"}
    answer = why(**unknown)
    assert 'we get no token ({"error": "invalid_client"}): check sasl.oauthbearer.* in GO2HOOKS_KAFKA_PROP' in answer
    assert "wrong" not in answer


def test_a_password_that_is_changed_is_in_force_without_a_restart(
    broker, known, security, run_service, emit_command, tmp_path: Path
):
    """In Kafka and in the file. Connections that exist go on; here Kafka is restarted, so that all log in again."""
    password = tmp_path / "password"
    password.write_text(known["kafka_sasl_password"])
    variables = {f"GO2HOOKS_{n.upper()}": str(v) for n, v in known.items() if n != "kafka_sasl_password"}
    variables["GO2HOOKS_KAFKA_SASL_PASSWORD_FILE"] = str(password)
    run_service("router", **variables)
    change_password(known, "changed")
    try:
        broker.stop()
        password.write_text("changed")
        object.__setattr__(security, "password", "changed")
        broker.start()
        broker.wait_ready()
        emit_command(variables)
        eventually(lambda: is_routed(load_settings(**known | {"kafka_sasl_password": "changed"})))
    finally:
        change_password(known | {"kafka_sasl_password": "changed"}, known["kafka_sasl_password"])
        object.__setattr__(security, "password", known["kafka_sasl_password"])


@pytest.fixture(scope="module")
def principals(known):
    """A login of its own for each service, with the rights that `topics acls` prints; as settings by service."""
    settings = load_settings(**known, retry_delays="200ms")
    make_topics(settings)
    for service in Principal:
        change_password(known, "password", user=service.value)
    admin = admin_client(settings)
    allowed = [binding(right) for service in Principal for right in rights(settings, service)]
    for done in admin.create_acls(allowed).values():
        done.result(20)
    return {
        service: known | {"kafka_sasl_username": service.value, "kafka_sasl_password": "password"}
        for service in Principal
    }


KINDS = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP, "cluster": ResourceType.BROKER}


def binding(right):
    pattern = ResourcePatternType.PREFIXED if right.is_prefix else ResourcePatternType.LITERAL
    operation, who = AclOperation[right.operation.value], f"User:{right.service}"
    return AclBinding(KINDS[right.resource], right.name, pattern, who, "*", operation, AclPermissionType.ALLOW)


def variables(settings):
    return {f"GO2HOOKS_{name.upper()}": str(value) for name, value in settings.items()} | {
        "GO2HOOKS_RETRY_DELAYS": "200ms",
        "GO2HOOKS_ALLOW_INSECURE_TARGETS": "true",
        "GO2HOOKS_TOPIC_PARTITIONS": "8",
    }


def test_each_service_does_its_work_with_the_rights_that_are_printed(
    principals, run_service, emit_command, database, secret_box
):
    """A delivery that fails, is retried and ends as a dead letter passes every topic that it may."""
    url, sealed = f"http://127.0.0.1:{free_port()}/", secret_box.seal(SECRET, "wh_down")
    database.execute("INSERT INTO accounts (id) VALUES ('acme')")
    create(database, NewWebhook("wh_down", "acme", "down", url, ["click"], sealed), 10)
    run_service("router", **variables(principals[Principal.ROUTER]))
    run_service("router.replay", **variables(principals[Principal.REPLAYER]))
    run_service("dispatcher", **variables(principals[Principal.DISPATCHER]))
    emit_command(variables(principals[Principal.PRODUCER]))

    def failed():
        rows = database.execute("SELECT attempt FROM attempts WHERE webhook_id = %s AND state = 'failed'", ["wh_down"])
        return rows.fetchall() == [(2,)]

    eventually(failed)
    database.execute(
        """INSERT INTO replays (id, webhook_id, account_id, selection, from_at, to_at)
           VALUES ('rpl_1', 'wh_down', 'acme', 'failed', now() - interval '1 hour', now())"""
    )
    eventually(lambda: database.execute("SELECT failed FROM replays WHERE status = 'done'").fetchall() == [(1,)])


def test_a_service_without_a_right_is_not_ready_says_which_and_begins_when_it_has_it(known, principals, run_service):
    """Nothing was read meanwhile: an attempt whose end cannot be kept would be made again and again."""
    admin = admin_client(load_settings(**known))
    dead = next(right for right in rights(load_settings(**known), Principal.DISPATCHER) if right.name.endswith(".dead"))
    (taken,) = admin.delete_acls([as_filter(binding(dead))]).values()
    assert taken.result(20)
    log = run_service("dispatcher", wait=False, **variables(principals[Principal.DISPATCHER]))
    eventually(lambda: "no right to WRITE topic go2.deliveries.dead" in log.read_text())
    assert not is_ready(log)
    admin.create_acls([binding(dead)])
    eventually(lambda: is_ready(log))


def is_ready(log):
    """Whether the service that writes this log says so."""
    ports = [json.loads(line)["metrics_port"] for line in log.read_text().splitlines() if '"metrics_port"' in line]
    try:
        return bool(ports) and urlopen(f"http://127.0.0.1:{ports[0]}/readyz", timeout=5).status == 200
    except OSError:
        return False


def as_filter(bound):
    return AclBindingFilter(
        bound.restype, bound.name, bound.resource_pattern_type, bound.principal, bound.host, bound.operation,
        bound.permission_type,
    )  # fmt: skip


def test_doctor_and_topics_work_with_the_operators_rights(principals, database_url, secret_key, monkeypatch):
    given = principals[Principal.OPERATOR] | {"database_url": database_url, "secret_keys": secret_key}
    for name, value in (given | {"retry_delays": "200ms"}).items():
        monkeypatch.setenv(f"GO2HOOKS_{name.upper()}", str(value))
    for command in (["doctor"], ["topics"], ["topics", "--check"], ["dead", "list", "events"]):
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, done.output
    monkeypatch.setenv("GO2HOOKS_KAFKA_SASL_USERNAME", "api")
    said = " ".join(CliRunner().invoke(main, ["doctor", "--service", "router"]).output.split())
    assert "no right to READ topic go2.events.click" in said, said


def change_password(known, password, user=None):
    admin = AdminClient(connection_config(load_kafka_settings(**known), "test"))
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    change = UserScramCredentialUpsertion(user or known["kafka_sasl_username"], info, password.encode())
    for done in admin.alter_user_scram_credentials([change]).values():
        done.result(20)


def is_routed(settings):
    """Whether the router's group has committed an offset of clicks."""
    with LogReader(settings) as reader:
        return any(reader.committed("go2hooks.router", reader.partitions([CLICKS])).values())


@pytest.fixture
def emit_command():
    def emit(variables):
        command = [sys.executable, "-m", "go2hooks", "emit", "click", "--account", "acme"]
        subprocess.run(command, env=os.environ | variables, check=True, timeout=60)

    return emit
