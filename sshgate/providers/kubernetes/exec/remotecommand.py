"""The exec protocol of Kubernetes: binary websocket messages of one channel byte and a payload. Pure.

Channels and subprotocols are those of k8s.io/apimachinery/pkg/util/remotecommand.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from signal import Signals
from typing import Any
from urllib.parse import urlencode

from sshgate.stream.interfaces import Exited, Lost, Outcome, Signalled
from sshgate.stream.terminal import TerminalSize

# The container of a sandbox in which all programs run.
CONTAINER = "shell"

STDIN = 0
STATUS = 3
CLOSE = 255

STDIN_PREFIX = bytes([STDIN])
# v5 only: no more data will be sent on this channel.
STDIN_CLOSE = bytes([CLOSE, STDIN])

NO_STATUS = "the connection to the sandbox broke; what ran in it is lost."
CUT = "the end of the program's output was lost on its way from the node; what came is not complete."


def exec_query(container: str, argv: Sequence[str], terminal: bool) -> str:
    """The query string of an exec request. With a terminal there is no separate stderr."""
    pairs = [("container", container), ("stdin", "true"), ("stdout", "true")]
    pairs.append(("tty", "true") if terminal else ("stderr", "true"))
    pairs += [("command", word) for word in argv]
    return urlencode(pairs)


def resize_frame(size: TerminalSize) -> bytes:
    """The message that sets the terminal's window size."""
    return b'\x04{"Width":%d,"Height":%d}' % (size.columns, size.rows)  # channel 4


def outcome(payload: bytes) -> Outcome:
    """Decode a status message. ``Lost`` if the program could not be started or its end is unknown."""
    try:
        status = json.loads(payload)
    except (ValueError, RecursionError):
        return Lost(NO_STATUS)
    if not isinstance(status, dict):
        return Lost(NO_STATUS)
    if status.get("status") == "Success":
        return Exited(0)
    code = _exit_code(status)
    if code is not None:
        return Exited(code)
    return _not_started(str(status.get("message") or ""))


def by_signal(outcome: Outcome) -> Outcome:
    """Turn a status of 128 + N, as shells and runtimes report it, into ``Signalled`` by signal N."""
    if isinstance(outcome, Exited) and outcome.status > 128:
        with contextlib.suppress(ValueError):
            return Signalled(Signals(outcome.status - 128).name.removeprefix("SIG"))
    return outcome


def _exit_code(status: dict[str, Any]) -> int | None:
    if status.get("reason") != "NonZeroExitCode":
        return None
    details = status.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    for cause in causes if isinstance(causes, list) else ():
        if isinstance(cause, dict) and cause.get("reason") == "ExitCode":
            try:
                return int(cause.get("message", "")) & 255
            except (TypeError, ValueError):
                return None
    return None


def _not_started(message: str) -> Lost:
    """Explain the container runtime's error to the user, with the status a shell would return."""
    if _MISSING.search(message):
        return Lost("the program is not in the sandbox's image.", 127)
    if _NOT_EXECUTABLE.search(message):
        return Lost("the sandbox cannot execute the program: permission denied or a wrong format.", 126)
    if _NOT_RUNNING.search(message):
        return Lost("the sandbox is not running.")
    return Lost(NO_STATUS)


# Error messages of runc, crun and gVisor. A bare "no such file" is not enough: it may be a file of the runtime's own.
_MISSING = re.compile(
    r'executable file .*not found|(exec: "|find\w* executable|failed to load ).*: no such file', re.I | re.S
)
_NOT_EXECUTABLE = re.compile(
    r'(exec: "|execve|failed to load ).*(permission denied|exec format error|is a directory)', re.I | re.S
)
_NOT_RUNNING = re.compile(r"container not found|not running|stopped|container_(created|exited)|not created", re.I)
