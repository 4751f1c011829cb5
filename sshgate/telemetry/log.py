"""Structured logs on stderr, human-readable or as JSON lines. Logs of libraries go through the same processors."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from sshgate.config.model import Log
from sshgate.telemetry.rate_limit import RateLimit


def configure(settings: Log, worker: int | None = None) -> None:
    """Set up ``structlog`` and the standard library's loggers. Call once in a process, before anything logs there.

    ``worker``: The number of this process among those of its gateway, for each log line.
    """

    def named(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["worker"] = worker
        return event

    level = logging.getLevelNamesMapping()[settings.level.upper()]
    human = settings.format == "human" or (settings.format == "auto" and sys.stderr.isatty())
    plain = structlog.dev.plain_traceback
    renderer: Any = (
        structlog.dev.ConsoleRenderer(exception_formatter=plain)
        if human
        else structlog.processors.JSONRenderer(ensure_ascii=True)
    )
    chain: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        *([named] if worker is not None else []),
        _escape,
    ]
    structlog.configure(
        processors=[*chain, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # One write for a line and its end, also where stderr has no buffer: workers write to the same file.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *chain],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
    logging.getLogger("aiohttp.server").addFilter(_Strangers())
    # Our own events describe each connection, with its ids; asyncssh's log would repeat it.
    logging.getLogger("asyncssh").setLevel(logging.ERROR)


def _escape(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape non-printable text: one chosen by a user must not control the terminal on which the log is read."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            # A traceback keeps its line breaks; its lines may contain text from a user too.
            lines = value.split("\n") if key == "exception" else [value]
            event[key] = "\n".join(line.encode("unicode_escape").decode("ascii") for line in lines)
    return event


class _Strangers(logging.Filter):
    """Shortens and rate-limits aiohttp's errors about malformed HTTP.

    They are the sender's mistake, and aiohttp would log a traceback with the sender's bytes for each.
    """

    def __init__(self) -> None:
        super().__init__()
        self._limit = RateLimit()

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        # Compare the module's name, so that this does not have to import aiohttp.
        if type(error).__module__ != "aiohttp.http_exceptions":
            return True
        record.msg, record.args = f"malformed request: {type(error).__name__}", ()
        record.exc_info = None
        return self._limit.due(str(record.msg))
