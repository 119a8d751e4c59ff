"""What a log line may show."""

import io
import json
import logging
import sys
import threading

import pytest
import structlog

from go2hooks import __version__
from go2hooks.build import BUILD
from go2hooks.settings import Settings
from go2hooks.telemetry import logs

PLANTED = {
    "webhook secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw+x/y=",
    "API key": "go2_0123456789abcdefghijABCDEFGHIJ0123456789",
    "bearer token": "Bearer abcdefghijklmnop.qrst-uvw",
    "encryption key": "q83vEjRWeJASNFZ4kBI0VniQEjRWeJASNFZ4kBI0Vng=",
    "private key": "-----BEGIN EC PRIVATE KEY-----MHcCAQEEIIGq0123456789-----END EC PRIVATE KEY-----",
}


@pytest.fixture(params=["json", "text"])
def written(request, monkeypatch):
    """What a process that is set up as a service is writes to stderr; everything is put back afterwards."""
    monkeypatch.setattr(sys, "stderr", stderr := io.StringIO())
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logs.configure(Settings(log_format=request.param), "tested")
    yield stderr
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def test_the_first_line_tells_the_version_and_the_build(written):
    first, _, rest = written.getvalue().partition("\n")
    assert __version__ in first
    assert BUILD.kind in first
    assert not rest


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED)
def test_secrets_are_masked_in_messages_values_nested_values_and_tracebacks(written, planted):
    log = structlog.get_logger("test")
    message = f"message {planted}"
    log.info(message, value=planted, nested={"deep": [planted]}, number=7)
    log.error("failed", exc_info=RuntimeError(planted))
    logging.getLogger("library").warning("foreign %s", planted)
    text = written.getvalue()
    core = planted.removeprefix("Bearer ")
    assert core not in text
    assert text.count("***") >= 5
    assert "RuntimeError" in text


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://go2:hunter22@db:5432/go2hooks",
        "host=db password=hunter22 user=go2",
        "password='hunter22'",
        "postgresql://db/go2hooks?sslpassword=hunter22&sslmode=require",
        "host=db SSLPASSWORD = hunter22",
    ],
)
def test_database_passwords_are_masked_and_the_rest_stays(text):
    masked = logs.mask(text)
    assert "hunter22" not in masked
    assert masked.startswith(text[:4])


@pytest.mark.parametrize(
    "text", ["go2_hooks", "wh_0123456789abcdefghij", "dlv_" + "ab" * 15, "http://127.0.0.1:8080/api", "go2.deliveries"]
)
def test_what_is_no_secret_stays(text):
    assert logs.mask(text) == text


@pytest.mark.parametrize("written", ["json"], indirect=True)
def test_a_json_line_stays_json_and_names_the_service(written):
    structlog.get_logger("test").warning("hello", authorization="Basic xyz", header="Bearer abcdefghij", grüße="ü")
    entry = json.loads(written.getvalue().splitlines()[-1])
    assert entry.pop("timestamp").endswith("Z")
    assert entry == {
        "event": "hello", "authorization": "***", "header": "Bearer ***", "grüße": "ü",
        "logger": "test", "level": "warning", "service": "tested",
    }  # fmt: skip


def test_a_line_that_cannot_be_formatted_is_reported_without_its_values(written):
    record = logging.makeLogRecord({"name": "library", "msg": "%d", "args": (PLANTED["webhook secret"],)})
    [ours] = [handler for handler in logging.getLogger().handlers if isinstance(handler, logs._MaskedHandler)]
    ours.emit(record)  # ours alone: pytest's own handler raises
    assert "TypeError" in written.getvalue()
    assert "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" not in written.getvalue()


def test_what_ends_the_process_is_a_masked_line_too(written):
    error = RuntimeError(PLANTED["API key"])
    sys.excepthook(RuntimeError, error, None)
    assert "go2_***" in written.getvalue()
    assert PLANTED["API key"] not in written.getvalue()


def test_what_the_kafka_client_repeats_is_logged_once_in_a_while_and_nothing_else_is_dropped(written, monkeypatch):
    """A broker that is away must not fill the disk with the same two lines."""
    now = 1000.0
    monkeypatch.setattr(logs.time, "monotonic", lambda: now)

    def repeat() -> None:
        for n in range(50):
            logging.getLogger("librdkafka").error("FAIL broker:9092 refused (after %dms)", n)
            structlog.get_logger("go2hooks.kafka.consumer").warning(logs.KAFKA_REPORTS, error=f"refused after {n}ms")
            structlog.get_logger("go2hooks.kafka.consumer").warning("partitions lost", count=n)

    repeat()
    logging.getLogger("librdkafka").error("FAIL broker:9092 timed out")
    now += 10.0
    repeat()
    text = written.getvalue()
    assert text.count("refused (after") == 2
    assert text.count(logs.KAFKA_REPORTS) == 2
    assert text.count("timed out") == 1
    assert text.count("partitions lost") == 100
