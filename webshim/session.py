"""A web session: a ``streams.Client`` that outlives its socket, and can be left and come back to."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from sshgate.access.identity import Identity
from sshgate.stream.flow import Flow
from sshgate.stream.interfaces import Control, Exited, Lost, Outcome, Resize, Signalled
from sshgate.stream.terminal import TerminalSize
from webshim.output import Output, Start
from webshim.principal import Principal
from webshim.protocol import INPUT_LIMIT, WINDOW_HIGH, WINDOW_LOW, Attach, Broken, Close, Snapshot

# Between the two window changes that make a program draw itself again: it must see both.
REDRAW_SECONDS = 0.1


class Viewer(Protocol):
    """The socket at which a session is looked at, as the session sees it. Nothing here waits."""

    tab: str
    acked: int
    """The output below this offset has been parsed by the page."""

    def wake(self) -> None:
        """There is more to send, or less to wait for."""

    def end(self, code: int, reason: str) -> None:
        """Close the socket."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a session ended, as the page is told."""

    code: int | None = None
    signal: str | None = None
    reason: str | None = None


class WebSession:
    """One program of one user, whoever looks at it.

    Input and sizes come in from the socket by plain calls, output goes into ``output`` and waits there for the
    viewer. At most one viewer is attached.
    """

    def __init__(self, session_id: str, identity: Identity, owner: Principal, profile: str, size: TerminalSize) -> None:
        self.id = session_id
        self.identity = identity
        self.owner = owner
        self.profile = profile
        self.size = size
        self.created = time.time()
        self.kept = 0.0
        """Seconds that it stays in the list after its end."""
        self.title = ""
        self.output = Output()
        self.viewer: Viewer | None = None
        self.ending: Ending | None = None
        self.begun = False
        self.running = False
        self.acquainted = False
        """Whether anybody was ever attached."""
        self.received = 0
        """Input bytes from all its sockets, and those that the program was handed."""
        self.taken = 0
        self._input = Flow(INPUT_LIMIT, INPUT_LIMIT)
        self._sizes: deque[TerminalSize] = deque()
        self._settle = False
        self._controlled = asyncio.Event()
        self._room = asyncio.Event()
        self._paused = False
        self._gone = asyncio.Event()
        self._reason: str | None = None

    def __repr__(self) -> str:
        seen = "attached" if self.viewer is not None else "detached"
        return f"<WebSession {self.state} {seen}, input {self._input.size}, {self.output!r}{' paused' * self._paused}>"

    @property
    def user(self) -> str:
        return self.identity.user

    @property
    def attached(self) -> bool:
        """Whether somebody is there or has just asked for it; the gateway's clocks ask."""
        return self.viewer is not None or not self.acquainted

    @property
    def state(self) -> str:
        """``new``, ``starting``, ``running`` or ``ended``."""
        if self.ending is not None:
            return "ended"
        return "running" if self.running else "starting" if self.begun else "new"

    def summary(self) -> dict[str, object]:
        """What lists say of it."""
        ending = self.ending
        return {
            "id": self.id,
            "profile": self.profile,
            "name": self.identity.login.name,
            "state": self.state,
            "attached": self.viewer is not None,
            "created": self.created,
            "cols": self.size.columns,
            "rows": self.size.rows,
            "title": self.title,
            "exit": ending and {"code": ending.code, "signal": ending.signal, "reason": ending.reason},
        }

    # --- from the socket ---

    def attach(self, viewer: Viewer, frame: Attach) -> Start:
        """Let ``viewer`` look at it from now on; where its output begins. Raises ``Broken`` where another one does."""
        before = self.viewer
        if before is not None and before.tab != viewer.tab and not frame.take_over:
            raise Broken("this session is open in another tab", "attached", Close.ATTACHED)
        start = self.output.begin(frame.offset, frame.cols, frame.rows)
        self.viewer = viewer
        self.acquainted = True
        viewer.acked = start.offset
        if before is not None:
            before.end(Close.TAKEN_OVER, "another tab has taken over")
        self.resize(frame.cols, frame.rows)
        if start.redraw and self.running:
            self._redraw()
        self._room.set()
        return start

    def detach(self, viewer: Viewer) -> None:
        """The viewer has gone; nothing happens where another one has taken over."""
        if self.viewer is viewer:
            self.viewer = None
            self._room.set()

    def type(self, data: bytes) -> None:
        """Input. Raises ``Broken`` where far too much waits for the program."""
        if self._input.size + len(data) > INPUT_LIMIT:
            raise Broken("more was sent than the program has taken", "input")
        self.received += len(data)
        self._input.put(data)

    def resize(self, columns: int, rows: int) -> None:
        """The window has this size."""
        size = TerminalSize.of(columns, rows)
        if size != self.size:
            self.size = size
            self._sizes.clear()
            self._sizes.append(size)
            self._controlled.set()

    def acknowledged(self) -> None:
        """The viewer's ``acked`` has moved."""
        self._room.set()

    def keep(self, snapshot: Snapshot) -> None:
        """The viewer's terminal had this state."""
        self.output.keep(snapshot)

    def _redraw(self) -> None:
        size = self.size
        other = TerminalSize(size.columns, size.rows - 1 if size.rows > 1 else 2)
        self._sizes.clear()
        self._sizes += [other, size]
        self._controlled.set()

    # --- from the registry ---

    def end(self, reason: str) -> None:
        """Whoever runs it sees its client gone; ``reason`` is what the page is told."""
        if self.ending is None:
            self._reason = self._reason or reason
            self._leave()

    def over(self) -> None:
        """It does not run any more and its sandbox is gone."""
        if self.ending is None:
            self.ending = Ending(reason=self._reason or "this session has ended.")
        self._leave()
        if self.viewer is not None:
            self.viewer.wake()

    def _leave(self) -> None:
        self._gone.set()
        self._room.set()
        self._input.discard()

    # --- streams.Client ---

    async def read(self) -> bytes | None:
        chunk = await self._input.get()
        if chunk is None:
            return None
        self.taken += len(chunk[1])
        if self.viewer is not None:
            self.viewer.wake()
        return chunk[1]

    async def write(self, stream: int, data: bytes) -> None:
        if self.ending is not None:
            return
        self.output.append(data)
        if self.viewer is not None:
            self.viewer.wake()
        while self._full():
            self._room.clear()
            await self._room.wait()

    def _full(self) -> bool:
        viewer = self.viewer
        waiting = self.output.end - viewer.acked if viewer is not None and not self._gone.is_set() else 0
        if waiting > WINDOW_HIGH:
            self._paused = True
        elif waiting <= WINDOW_LOW:
            self._paused = False
        return self._paused

    async def control(self) -> Control:
        if not self.running:
            # Controls are asked for once the program runs, not before.
            self.running = True
            if self.viewer is not None:
                self.viewer.wake()
        if self._settle:
            # The program must have seen the size before, or the two changes are none to it.
            await asyncio.sleep(REDRAW_SECONDS)
            self._settle = False
        while not self._sizes:
            self._controlled.clear()
            await self._controlled.wait()
        size = self._sizes.popleft()
        self._settle = bool(self._sizes)
        return Resize(size)

    async def wait_closed(self) -> None:
        await self._gone.wait()

    async def finish(self, outcome: Outcome) -> None:
        if self.ending is None:
            # A program that went because its client did has not chosen its end.
            self.ending = _ending(outcome) if self._reason is None else Ending(reason=self._reason)
        self._leave()
        if self.viewer is not None:
            self.viewer.wake()


def _ending(outcome: Outcome) -> Ending:
    if isinstance(outcome, Exited):
        return Ending(code=outcome.status)
    if isinstance(outcome, Signalled):
        return Ending(signal=outcome.name)
    assert isinstance(outcome, Lost)
    return Ending(reason=outcome.reason)
