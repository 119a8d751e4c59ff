"""Settings say what is wrong with them, and refuse to contradict each other."""

import os
import traceback
from collections import Counter
from ipaddress import ip_network
from typing import Any

import pytest

from go2hooks.core.errors import SettingsError
from go2hooks.core.security.target import BAD_PORTS
from go2hooks.settings import Settings, load_settings
from go2hooks.settings.environment import Environment


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("GO2HOOKS_"):
            monkeypatch.delenv(name)


def test_every_setting_says_what_it_is_for() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_no_two_groups_define_the_same_name_since_one_would_hide_the_other() -> None:
    groups = [group for group in Settings.__mro__ if issubclass(group, Environment) and group is not Environment]
    names = Counter(
        name
        for group in groups
        for name in {*group.__dict__, *group.__annotations__}
        if not name.startswith("__") and name not in Environment.__dict__
    )
    assert [name for name, count in names.items() if count > 1] == []
    assert len(groups) > 10


def test_networks_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GO2HOOKS_TARGET_ALLOW_CIDRS", "10.1.0.0/16, fd00:1::/32,192.168.7.9")
    monkeypatch.setenv("GO2HOOKS_TARGET_DENY_CIDRS", "203.0.113.0/24")
    policy = load_settings().address_policy()
    assert policy.allow == (ip_network("10.1.0.0/16"), ip_network("fd00:1::/32"), ip_network("192.168.7.9/32"))
    assert policy.deny == (ip_network("203.0.113.0/24"),)
    assert policy.permits("10.1.2.3")
    assert not policy.permits("10.2.2.3")


@pytest.mark.parametrize(
    ("name", "text"),
    [("SECRET_OVERLAP_S", "inf"), ("SECRET_OVERLAP_S", "1e12"), ("DISABLE_MIN_SPAN_S", "inf"), ("POOL_IDLE_S", "nan")],
)
def test_a_time_that_no_calendar_holds_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv(f"GO2HOOKS_{name}", text)
    with pytest.raises(SettingsError, match=f"GO2HOOKS_{name}"):
        load_settings()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("10.1.2.3/8", "write 10.0.0.0/8 if that is meant"),
        ("10.0.0.0/33", "is no network: write it such as"),
        ("example.com", "is no network: write it such as"),
        ("fd00::1/8", "write fd00::/8 if that is meant"),
        ("10.0.0.0/8;11.0.0.0/8", "is no network"),
    ],
)
@pytest.mark.parametrize("name", ["TARGET_ALLOW_CIDRS", "TARGET_DENY_CIDRS"])
def test_a_network_that_is_none_is_refused_with_its_text_and_the_remedy(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, says: str
) -> None:
    monkeypatch.setenv(f"GO2HOOKS_{name}", f"192.0.2.0/24,{text}")
    with pytest.raises(SettingsError, match=f"GO2HOOKS_{name}") as caught:
        load_settings()
    assert says in str(caught.value)


def test_ports_that_are_never_http_are_denied_unless_the_operator_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert set(load_settings().target_deny_ports) == BAD_PORTS
    monkeypatch.setenv("GO2HOOKS_TARGET_DENY_PORTS", "22, 8443")
    assert load_settings().target_deny_ports == (22, 8443)
    monkeypatch.setenv("GO2HOOKS_TARGET_DENY_PORTS", "")
    assert load_settings().target_deny_ports == ()


@pytest.mark.parametrize(("text", "says"), [("70000", "70000 is no port"), ("-1", "-1 is no port"), ("ssh", "integer")])
def test_a_port_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str, says: str) -> None:
    monkeypatch.setenv("GO2HOOKS_TARGET_DENY_PORTS", f"22,{text}")
    with pytest.raises(SettingsError, match=says):
        load_settings()


@pytest.mark.parametrize(
    ("contradiction", "says"),
    [
        ({"drain_timeout_s": 10.0}, "DRAIN_TIMEOUT_S must exceed"),
        ({"revoke_timeout_s": 10.0}, "REVOKE_TIMEOUT_S must exceed"),
        ({"log_retention_days": 1, "retry_delays": "13h"}, "LOG_RETENTION_DAYS must be"),
        ({"drain_timeout_s": 11.0}, "DRAIN_TIMEOUT_S must not be below GO2HOOKS_REVOKE_TIMEOUT_S"),
        ({"revoke_timeout_s": 271.0, "drain_timeout_s": 300.0}, "REVOKE_TIMEOUT_S must not exceed 270 s"),
        ({"kafka_session_timeout_ms": 300_001}, "SESSION_TIMEOUT_MS must not exceed 300000"),
        ({"attempts_retention_days": 6}, "ATTEMPTS_RETENTION_DAYS must not be below GO2HOOKS_LOG_RETENTION_DAYS"),
        ({"window_deliveries": 999}, "WINDOW_DELIVERIES must not be below GO2HOOKS_MAX_SENDS"),
        ({"response_excerpt_bytes": 16385}, "RESPONSE_EXCERPT_BYTES must not exceed"),
        ({"record_batch_ms": 15_000}, "RECORD_BATCH_MS must fit"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_by_name(contradiction: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        load_settings(**contradiction)


@pytest.mark.parametrize(
    "agreed",
    [
        {},
        {"drain_timeout_s": 12.0},
        {"revoke_timeout_s": 270.0, "drain_timeout_s": 270.0},
        {"kafka_session_timeout_ms": 300_000},
        {"attempts_retention_days": 7},
        {"window_deliveries": 1000},
        {"response_excerpt_bytes": 16384},
        {"record_batch_ms": 14_999},
        {"log_retention_days": 1, "retry_delays": "12h"},
    ],
)
def test_the_defaults_and_what_lies_just_within_the_bounds_are_accepted(agreed: dict[str, Any]) -> None:
    load_settings(**agreed)


@pytest.mark.parametrize(
    "url",
    ["postgresql//u:hunter2@h/d", "postgres://u:hun ter2@h/d", "postgresql://u:hunter2%@h/d", "postgresql://u:hunter2h/d",
     "postgresql://u:hunter2@[::1/d", "postgresql://u@h/d?pasword=hunter2", "host=h pasword=hunter2", "hunter2",
     "postgresql://u:hunter2@hunter2@h/d"],
)  # fmt: skip
def test_a_database_url_that_is_none_is_refused_without_its_text(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("GO2HOOKS_DATABASE_URL", url)
    with pytest.raises(SettingsError, match=r"GO2HOOKS_DATABASE_URL: .* no connection URL") as refused:
        load_settings()
    assert "ter2" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    "url",
    ["postgresql://u:hunter2@h:5432/d", "postgres://u@a:1,b:2/d?sslmode=require", "host=h port=5432 password=hunter2", "",
     "postgresql:///d?host=/run/postgresql", "postgresql://u:p%40ss@[::1]/d"],
)  # fmt: skip
def test_whatever_libpq_can_read_is_a_database_url(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("GO2HOOKS_DATABASE_URL", url)
    assert load_settings().database_url.get_secret_value() == url


def test_an_egress_proxy_is_read_with_its_credentials_and_shown_without(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().egress_proxy_address() is None
    monkeypatch.setenv("GO2HOOKS_EGRESS_PROXY", "")
    assert load_settings().egress_proxy_address() is None
    monkeypatch.setenv("GO2HOOKS_EGRESS_PROXY", "https://go2:hunter2@proxy.corp:3128")
    settings = load_settings()
    address = settings.egress_proxy_address()
    assert address is not None
    assert (address.host, address.port, address.is_tls) == ("proxy.corp", 3128, True)
    assert address.authorization == "Basic Z28yOmh1bnRlcjI="
    assert "hunter2" not in repr(settings) + repr(address)


@pytest.mark.parametrize(
    "url", ["proxy.corp:3128", "http://go2:hunter2/x@proxy.corp:3128", "http://hunter2@proxy.corp:1"]
)
def test_what_is_no_egress_proxy_is_refused_unquoted(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("GO2HOOKS_EGRESS_PROXY", url)
    with pytest.raises(SettingsError, match="GO2HOOKS_EGRESS_PROXY") as caught:
        load_settings()
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
