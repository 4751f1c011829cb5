"""What sessions a sandbox has, and ending one: asked of its resident, whose answers are not trusted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass

from sshgate.config.values import is_label
from sshgate.errors import GateError, StartFailed
from sshgate.hold.answers import ending_of, is_id, printable, watchers_of
from sshgate.hold.frames import Kind
from sshgate.hold.line import Broken, CannotHold, Line, NoResident
from sshgate.sandbox.framing import ProtocolError
from sshgate.sandbox.interfaces import Sandbox
from sshgate.stream.terminal import LARGEST

# Sessions of one sandbox that are listed, running and ended ones.
MOST = 128
# Seconds until a session that was hung up is looked for again.
END_PAUSES = (0.1, 0.5, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class HeldSession:
    """One held session, for its user. Times are in seconds."""

    name: str
    program: str
    title: str
    state: str
    """``attached from ADDRESS``, ``detached`` or ``ended: status N``."""
    age: float
    columns: int
    rows: int
    quiet: float
    """Since its last output."""
    left: float
    """Since the last client left or the program ended; 0 while a client is there."""
    id: str
    watchers: tuple[str, ...]
    """The addresses of who watches it by a link."""

    @property
    def ended(self) -> bool:
        """Whether its program has ended."""
        return self.state.startswith("ended")


async def sessions(sandbox: Sandbox) -> list[HeldSession]:
    """Return the sessions of a sandbox; none where no resident runs.

    Raises:
        CannotHold: the sandbox has no python3.
        NoResident: what answers is none of ours, or takes nobody else.
        GateError: as ``Line.open``.
    """
    answer = await _ask(sandbox, Kind.LIST)
    return [] if answer is None else _parsed(answer, time.time())


async def running(sandbox: Sandbox, but: str = "") -> bool:
    """Return whether a session runs in a sandbox; true where that cannot be found out.

    The one with the name ``but`` counts only if it has a client.
    """
    try:
        found = await sessions(sandbox)
    except GateError:
        return True
    return any(not one.ended and (one.name != but or one.state != "detached") for one in found)


async def others(sandbox: Sandbox, but: str = "") -> bool:
    """Return whether a session of another name than ``but`` runs in a sandbox; true where that cannot be found out.

    Unlike for ``running``, a sandbox that cannot hold any has none.
    """
    try:
        return any(not one.ended and one.name != but for one in await sessions(sandbox))
    except CannotHold:
        return False
    except GateError:
        return True


async def end(sandbox: Sandbox, name: str) -> bool:
    """Hang up a session until it has ended. Returns whether there was one of this name.

    Raises ``StartFailed`` if its program does not end; otherwise as ``sessions``.
    """
    found = False
    for pause in END_PAUSES:  # a shell that is just starting may miss the first one
        if await _ask(sandbox, Kind.END, name.encode()) is None:
            return found
        found = True
        await asyncio.sleep(pause)
    raise StartFailed(f"the program of session {name} was hung up and goes on; end it by a signal, or end its sandbox.")


async def end_detached(sandbox: Sandbox, name: str) -> None:
    """Hang up a session if no client is in it. Where that cannot be done, it goes on."""
    with contextlib.suppress(GateError):
        if any(one.name == name and one.state == "detached" for one in await sessions(sandbox)):
            await end(sandbox, name)


async def _ask(sandbox: Sandbox, kind: int, payload: bytes = b"", again: bool = True) -> bytes | None:
    line = await Line.find(sandbox)
    if line is None:
        return None
    try:
        return await line.ask(kind, payload)
    except Broken:
        if not again or kind == Kind.END:  # which it may have carried out
            raise
    except ProtocolError as error:
        raise NoResident("what keeps sessions in the sandbox broke its rules.") from error
    finally:
        await line.close()
    return await _ask(sandbox, kind, payload, again=False)


def _parsed(answer: bytes, now: float) -> list[HeldSession]:
    try:
        return [_session(one, now) for one in json.loads(answer)[:MOST]]
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, ProtocolError) as error:
        raise NoResident("what keeps sessions in the sandbox broke its rules.") from error


def _session(one: dict[str, object], now: float) -> HeldSession:
    def since(key: str) -> float:
        moment = one[key]
        if not isinstance(moment, int | float):
            raise TypeError(key)
        return min(max(0.0, now - moment), now)

    size, sources, status, name = one["size"], one["from"], one["status"], one["name"]
    if not isinstance(size, list) or not isinstance(sources, list) or not isinstance(name, str) or not is_label(name):
        raise TypeError("no session")
    if not is_id(one["id"]):
        raise TypeError("no id")
    if status is not None:
        state, left = f"ended: {ending_of(status)}", since("ended")
    elif sources:
        state, left = "attached from " + ", ".join(printable(source)[:45] for source in sources[:4]), 0.0
    else:
        state, left = "detached", since("detached")
    program, title = (printable(one[key])[:80] for key in ("program", "title"))
    columns, rows = (min(max(0, int(number)), LARGEST) for number in size)
    quiet, age = since("last_output"), since("created")
    return HeldSession(
        name, program, title, state, age, columns, rows, quiet, left, str(one["id"]), watchers_of(one)
    )  # fmt: skip
