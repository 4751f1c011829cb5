"""The audit file: one line of JSON per event, in a file that may be rotated at any time."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec
import structlog

from sshgate.errors import ConfigError
from sshgate.telemetry.events import Record

log = structlog.get_logger("sshgate.audit")


class AuditFile:
    """A sink of ``events.Events`` that appends to a file.

    The file is reopened when it was moved, removed or replaced, so logrotate needs no signal. Several workers may write
    to one file: each line is one write. Events that cannot be written are counted in ``lost`` and logged once until
    writing works again: a full disk must not lock users out.
    """

    def __init__(self, path: Path) -> None:
        """Open the file. Raises ``ConfigError`` if it cannot be written."""
        self._path = path
        self.lost = 0
        self._failing = False
        self._torn = False
        try:
            self._file = _opened(path)
        except OSError as error:
            raise ConfigError([f"{path}: cannot write the audit file: {error.strerror}."]) from error

    def __repr__(self) -> str:
        return f"<AuditFile {self._path}, {self.lost} lost>"

    def __call__(self, record: Record) -> None:
        """Write one event. Never raises for a failed write."""
        line = msgspec.json.encode({"at": round(record.at, 3), "event": record.code.value, **record.fields}) + b"\n"
        try:
            self._append(line)
        except OSError as error:
            self.lost += 1
            if not self._failing:
                log.error("audit.unwritable", file=str(self._path), reason=error.strerror)
            self._failing = True
        else:
            self._failing = False

    def _append(self, line: bytes) -> None:
        if self._file < 0 or not self._in_place():
            file = _opened(self._path)
            self.close()
            self._file, self._torn = file, False
        # After a line that did not fit on a full disk the next begins on a line of its own.
        line = b"\n" * self._torn + line
        written = os.write(self._file, line)
        self._torn = written < len(line)
        if self._torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _in_place(self) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._file))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Close the file. A later event, as of a stream that the gateway's end cuts, opens it again."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


def _opened(path: Path) -> int:
    # Mode 0600 whatever the umask: the file holds who logged in, and from where.
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
