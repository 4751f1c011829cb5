"""Everything that may end a login or a session early, and who learns what of it.

Each class answers three questions: what the user reads (``str(error)``), which exit status ssh returns (``status``),
and how loud the operator's log is (``level``). Messages are one sentence and never hold a token, a key or a raw API
answer.
"""

from __future__ import annotations

import errno
import logging
import os


class GateError(Exception):
    """The root. ``code`` is the stable name of the failure in logs, events and metrics."""

    code = "internal"
    status = 255
    level = logging.ERROR


class ConfigError(GateError):
    """The configuration cannot be used; ``mistakes`` holds one sentence each, all of them."""

    code = "config"
    status = 2

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class CannotListen(GateError):
    """An address that a setting names cannot be listened on."""

    code = "listen"
    status = 1

    def __init__(self, setting: str, wanted: object, error: OSError) -> None:
        if error.errno == errno.EADDRINUSE:
            why = f"another program does already; choose another port in {setting}."
        elif error.errno == errno.EACCES:
            why = "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher one."
        else:
            reason = os.strerror(error.errno) if isinstance(error.errno, int) and error.errno > 0 else error
            why = f"{reason}; choose another address in {setting}."
        super().__init__(f"cannot listen on {wanted}: {why}")


class Denied(GateError):
    """Policy says no to this identity and request."""

    code = "denied"
    status = 254
    level = logging.WARNING


class LimitReached(GateError):
    """A quota or an admission limit is full; says which and what to do."""

    code = "limit"
    level = logging.WARNING


class BadRequest(GateError):
    """The client asked for something that cannot be carried out, e.g. a command that is too long."""

    code = "request"
    status = 126
    level = logging.INFO


class NoSuchSandbox(GateError):
    """The user has no sandbox, or home, of the name that was given."""

    code = "no_sandbox"
    status = 1
    level = logging.INFO


class StartFailed(GateError):
    """The sandbox cannot start: image missing, unschedulable, denied; says why in the user's words."""

    code = "start"
    level = logging.WARNING


class ProgramMissing(StartFailed):
    """The sandbox runs but lacks the program that was to be started."""

    code = "missing"
    status = 127


class Unavailable(GateError):
    """The provider does not answer (API server gone, slow, restarting)."""

    code = "unavailable"


class Cancelled(GateError):
    """The user gave up while waiting; nothing is shown, everything is undone."""

    code = "cancelled"
    status = 130
    level = logging.INFO
