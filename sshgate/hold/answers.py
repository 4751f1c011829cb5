"""What a resident says in its frames, parsed as a stranger's words. Pure."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from typing import Any

from sshgate.config.values import is_label
from sshgate.errors import GateError, LimitReached, StartFailed
from sshgate.hold.frames import OFFSET
from sshgate.hold.line import SessionGone
from sshgate.hold.terminal import RING
from sshgate.sandbox.framing import ProtocolError
from sshgate.stream.interfaces import Exited, Outcome, Signalled
from sshgate.stream.terminal import LARGEST

# Characters of a session's id at most; ours have 16.
LONGEST_ID = 64
LARGEST_PID = 1 << 22
MOST_WATCHERS = 64
# Sessions that have ended meanwhile and are reported to one login.
MOST_PAST = 8
# A page counts in doubles.
LARGEST_OFFSET = 1 << 53

SILENT = "this client showed no sign of life when you logged in again; the session goes on there."
GONE = "the session is gone: what kept it in the sandbox was ended."


@dataclass(frozen=True, slots=True)
class Past:
    """A session that ended while nobody was attached."""

    id: str
    name: str
    program: str
    ending: str


@dataclass(frozen=True, slots=True)
class Joined:
    """The answer to a wish to join. ``end`` is the offset at which the output ends now."""

    name: str
    id: str
    pid: int
    received: int
    offset: int
    end: int
    made: bool
    past: list[Past]


def joined_of(payload: bytes) -> Joined:
    """Return what a client has joined. Raises ``ProtocolError``."""
    answer = parsed(payload, dict)
    name, session, pid, received = (answer.get(key) for key in ("name", "id", "pid", "received"))
    offset, end, past = answer.get("offset"), answer.get("end"), answer.get("past")
    if not isinstance(name, str) or not is_label(name) or not isinstance(session, str) or not is_id(session):
        raise ProtocolError("an answer without a session")
    if type(pid) is not int or not 1 < pid <= LARGEST_PID or type(received) is not int:
        raise ProtocolError("an answer without numbers")
    if type(offset) is not int or not 0 <= offset <= LARGEST_OFFSET:
        raise ProtocolError("an answer without an offset")
    # What is further on comes as a screen.
    until = min(end, offset + 2 * RING) if type(end) is int else offset
    ended = [past_of(one) for one in past[:MOST_PAST]] if isinstance(past, list) else []
    return Joined(name, session, pid, received, offset, until, answer.get("made") is True, ended)


@dataclass(frozen=True, slots=True)
class State:
    """What a session is at besides its output: its size, and the addresses of who watches it."""

    columns: int
    rows: int
    watchers: tuple[str, ...]


def state_of(payload: bytes) -> State:
    """Return the state of a session. Raises ``ProtocolError``."""
    answer = parsed(payload, dict)
    size = answer.get("size")
    if not isinstance(size, list) or len(size) != 2 or any(type(one) is not int for one in size):
        raise ProtocolError("a state without a size")
    columns, rows = (min(max(1, one), LARGEST) for one in size)
    return State(columns, rows, watchers_of(answer))


def watchers_of(answer: dict[str, Any]) -> tuple[str, ...]:
    """Return from where a session is watched; an older resident lets nobody watch. Raises ``ProtocolError``."""
    sources = answer.get("watchers", [])
    if not isinstance(sources, list):
        raise ProtocolError("no list of watchers")
    return tuple(printable(one)[:45] for one in sources[:MOST_WATCHERS])


def offset_of(payload: bytes) -> int:
    """Return the offset that a frame begins with. Raises ``ProtocolError``."""
    if len(payload) < OFFSET.size:
        raise ProtocolError("a frame without its offset")
    number: int = OFFSET.unpack_from(payload)[0]
    if number > LARGEST_OFFSET:
        raise ProtocolError("an offset that no output has")
    return number


def parsed(payload: bytes, kind: type) -> Any:
    """Parse JSON of this type. Raises ``ProtocolError``."""
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("no JSON") from error
    if not isinstance(value, kind):
        raise ProtocolError("other JSON")
    return value


def outcome_of(payload: bytes) -> Outcome:
    """Return how a program has ended. Raises ``ProtocolError``."""
    return _outcome(parsed(payload, list))


def _outcome(value: object) -> Outcome:
    if not isinstance(value, list) or len(value) != 2 or type(value[1]) is not int or not 0 <= value[1] <= 255:
        raise ProtocolError("no status")
    if value[0] == "exit":
        return Exited(value[1])
    try:
        return Signalled(signal.Signals(value[1]).name.removeprefix("SIG"))
    except ValueError as error:
        raise ProtocolError("no signal") from error


def ending_of(status: object) -> str:
    """Return how a session ended, in two words. Raises ``ProtocolError``."""
    outcome = _outcome(status)
    return f"status {outcome.status}" if isinstance(outcome, Exited) else f"signal {getattr(outcome, 'name', '')}"


def refusal_of(payload: bytes, most: int, of_user: int = 0) -> GateError:
    """Return why a wish to join was refused, where ``most`` sessions may be, or its user may have ``of_user``."""
    reason = payload.decode("ascii", "replace")
    if reason == "full" and of_user:
        return LimitReached(
            f"you have {of_user} sessions in your sandboxes, as many as you may: `ssh -s USER@HOST sessions` lists "
            "them, and `ssh -s USER=NAME=SESSION@HOST end-session` ends one."
        )
    if reason == "full":
        return LimitReached(
            f"this sandbox has {most} sessions, as many as it may: `ssh -s USER=NAME@HOST sessions` lists them, "
            "and `ssh -s USER=NAME=SESSION@HOST end-session` ends one."
        )
    if reason == "watched":
        return LimitReached("this sandbox is watched by as many people as may; try again later.")
    if reason in ("gone", "silent"):
        return SessionGone(GONE if reason == "gone" else SILENT)
    return StartFailed(f"the sandbox cannot start a session: {printable(reason[:80])}.")


def is_id(value: object) -> bool:
    """Return whether this can be the id of a session."""
    return isinstance(value, str) and value.isalnum() and len(value) <= LONGEST_ID


def past_of(one: object) -> Past:
    """Return an ended session. Raises ``ProtocolError``."""
    if not isinstance(one, dict) or not isinstance(name := one.get("name"), str) or not is_label(name):
        raise ProtocolError("no past session")
    if not is_id(one.get("id")):
        raise ProtocolError("a past session without its id")
    return Past(one["id"], name, printable(one.get("program"))[:80], ending_of(one.get("status")))


def printable(text: object) -> str:
    """Return the start of a stranger's text without control characters. Raises ``ProtocolError`` if it is none.

    Python cannot make a text of values that are nested as deep as can be parsed.
    """
    if not isinstance(text, str):
        raise ProtocolError("no text")
    return "".join(one for one in text[:200] if one.isprintable())
