"""The audit file: one line of JSON per event, in a file that may be rotated at any time."""

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
    """A sink of ``events.Events`` that appends to a file.

    The file is reopened when it was moved, removed or replaced, so logrotate needs no signal. Events that cannot be
    written are counted in ``lost`` and logged once until writing works again: a full disk must not lock users out.
    """

    def __init__(self, path: Path) -> None:
        """Open the file. Raises ``ConfigError`` if it cannot be written."""
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
        """Write one event. Never raises for a failed write."""
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
        """Close the file."""
        self._file.close()


class _Lines(WatchedFileHandler):
    """A ``WatchedFileHandler`` whose errors reach the caller."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, mode="a", encoding="utf-8")

    def _open(self) -> TextIOWrapper:
        # Called after each rotation too. Mode 0600 whatever the umask: the file holds who logged in, and from where.
        return open(self.baseFilename, "a", encoding="utf-8", opener=_private)

    def write(self, line: str) -> None:
        """Append a line. Raises ``OSError``."""
        self.emit(logging.LogRecord("audit", logging.INFO, "", 0, "%s", (line,), None))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Re-raise. ``emit`` calls this in an ``except`` block; the default prints the error and continues."""
        raise


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
