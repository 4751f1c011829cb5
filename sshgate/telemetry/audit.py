"""The audit file: one JSON line for each event, in a file that may be moved away at any time."""

from __future__ import annotations

import logging
import os
from io import TextIOWrapper
from logging.handlers import WatchedFileHandler
from pathlib import Path

import msgspec
import structlog

from sshgate.errors import ConfigError
from sshgate.telemetry.events import Record

log = structlog.get_logger("sshgate.audit")


class AuditFile:
    """A sink of ``events.Events``.

    The file is opened again when another one, or none, stands at its path (logrotate needs no signal). What cannot be
    written is counted and told once in the log until writing works again: a full disk must not lock people out.
    """

    def __init__(self, path: Path) -> None:
        """Raises ``ConfigError`` where the file cannot be written."""
        self._path = path
        self.lost = 0
        self._failing = False
        try:
            self._file = _Lines(path)
        except OSError as error:
            raise ConfigError([f"{path}: cannot write the audit file: {error.strerror}."]) from error

    def __repr__(self) -> str:
        return f"<AuditFile {self._path}, {self.lost} lost>"

    def __call__(self, record: Record) -> None:
        """Write one event."""
        line = msgspec.json.encode({"at": round(record.at, 3), "event": record.code.value, **record.fields})
        try:
            self._file.write(line.decode())
        except OSError as error:
            self.lost += 1
            if not self._failing:
                log.error("audit.unwritable", file=str(self._path), reason=error.strerror)
            self._failing = True
        else:
            self._failing = False

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class _Lines(WatchedFileHandler):
    """The standard library's watched file, with errors that reach the caller."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, mode="a", encoding="utf-8")

    def _open(self) -> TextIOWrapper:
        # Also after each rotation, whatever the umask: it says who was here, from where, and when.
        return open(self.baseFilename, "a", encoding="utf-8", opener=_private)

    def write(self, line: str) -> None:
        """Append a line. Raises ``OSError``."""
        self.emit(logging.LogRecord("audit", logging.INFO, "", 0, "%s", (line,), None))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Called in an ``except`` of ``emit``, which would print the error and go on."""
        raise


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
