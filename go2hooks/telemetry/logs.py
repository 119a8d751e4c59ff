"""Structured logs on stderr: one line per entry, with secrets masked in the lines of all libraries.

Lines of other libraries (waitress, alembic, psycopg) go the same way as ours.
"""

import logging
import re
import sys
import threading
import time
import traceback
from types import TracebackType
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from go2hooks import __version__
from go2hooks.build import BUILD
from go2hooks.settings import Settings

KAFKA_REPORTS: Final = "kafka client reports"  #: the message with which go2hooks.kafka logs librdkafka's reports
MASK: Final = "***"
_SECRET_NAMES: Final = re.compile(
    r"(?i)secret|password|passwd|authorization|api_?key|private_?key|token|signature|cookie"
)
_NUMBERS: Final = re.compile(r"\d+")
_PATTERNS: Final = (
    (re.compile(r"whsec_[A-Za-z0-9+/=_-]+"), f"whsec_{MASK}"),
    (re.compile(r"\bgo2_[A-Za-z0-9]{16,}"), f"go2_{MASK}"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}"), rf"\1 {MASK}"),
    (re.compile(r"(\w://[^:/@\s\"']*):[^/\s\"']+@"), rf"\1:{MASK}@"),  # the password of a URL
    (re.compile(r"(?i)(password\s*=\s*)(\\?['\"])?[^\s\"'\\]+"), rf"\1\2{MASK}"),  # and of a connection string
    (re.compile(r"(?s)-----BEGIN ([A-Z ]*)PRIVATE KEY-----.*?(?:-----END \1PRIVATE KEY-----|$)"), MASK),
    (re.compile(r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{43}="), MASK),  # base64 of 32 bytes: an encryption key
)


def configure(settings: Settings, service: str) -> None:
    """Set up logging for this process, and log its version and build. Call it once, first."""
    handler = _MaskedHandler(sys.stderr)
    handler.setFormatter(_formatter(settings.log_format, service))
    handler.addFilter(_KafkaRepeats())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for quieter in ("alembic", "psycopg.pool"):  # at INFO they repeat the same lines at every start
        logging.getLogger(quieter).setLevel(logging.WARNING)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a line per request that has to wait
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared(),
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    _log_uncaught()
    structlog.get_logger(__name__).info("process starts", version=__version__, build=str(BUILD))


def mask(text: str) -> str:
    """`text` with everything that looks like a secret replaced."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def mask_named(_logger: WrappedLogger, _method: str, entry: EventDict) -> EventDict:
    """Mask values whose names say that they are secret."""
    for name, value in entry.items():
        if isinstance(value, str | bytes) and _SECRET_NAMES.search(name):
            entry[name] = MASK
    return entry


def _mask_line(_logger: WrappedLogger, _method: str, line: Any) -> str:
    """Mask the finished line, so that no nested value, repr or traceback is missed."""
    return mask(str(line))


def _shared() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        mask_named,
    ]


def _formatter(log_format: str, service: str) -> logging.Formatter:
    def name_service(_logger: WrappedLogger, _method: str, entry: EventDict) -> EventDict:
        entry["service"] = service
        return entry

    rendering: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, name_service]
    if log_format == "json":
        rendering += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
    else:
        plain = structlog.dev.plain_traceback
        rendering.append(structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain))
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_shared(), structlog.stdlib.ExtraAdder()], processors=[*rendering, _mask_line]
    )


class _KafkaRepeats(logging.Filter):
    """Lets a librdkafka message pass once in ten seconds: while a broker is away it repeats it 200 times a second."""

    repeat_after_s: Final = 10.0
    most_known: Final = 256  #: messages; then all are forgotten

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if record.name != "librdkafka" and KAFKA_REPORTS not in text:
            return True
        what, now = (record.name, _NUMBERS.sub("", text)), time.monotonic()
        if now - self._said.get(what, -self.repeat_after_s) < self.repeat_after_s:
            return False
        if len(self._said) >= self.most_known:
            self._said.clear()
        self._said[what] = now
        return True


class _MaskedHandler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name for it
        """Report a line that could not be written, without its values, which logging itself would print."""
        self.stream.write(mask(f"a log line of {record.name} could not be written: {traceback.format_exc(limit=-3)}"))


def _log_uncaught() -> None:
    """Log uncaught exceptions of the process and its threads, masked like any other line."""
    log = structlog.get_logger("uncaught")

    def on_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
            return
        log.critical("the process ends on an unexpected error", exc_info=(kind, error, trace))

    def on_thread(failure: threading.ExceptHookArgs) -> None:
        if failure.exc_value is not None:
            trace = (failure.exc_type, failure.exc_value, failure.exc_traceback)
            log.critical(
                "a thread ended on an unexpected error", thread=getattr(failure.thread, "name", None), exc_info=trace
            )

    sys.excepthook = on_exception
    threading.excepthook = on_thread
