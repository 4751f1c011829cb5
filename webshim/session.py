"""A web session: a ``stream.interfaces.Client`` that outlives its sockets, so users can detach and reattach."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from sshgate.access.identity import Identity
from sshgate.config.values import is_given
from sshgate.hold.answers import State
from sshgate.hold.wishes import SCREEN, SCREEN_HEAD, Place
from sshgate.stream.flow import Flow
from sshgate.stream.interfaces import STDERR, Control, Exited, Lost, Outcome, Resize, Signalled
from sshgate.stream.tasks import Event
from sshgate.stream.terminal import TerminalSize
from webshim.attention import Attention
from webshim.credentials import Principal
from webshim.output import Output, Start
from webshim.protocol import INPUT_LIMIT, WINDOW_HIGH, WINDOW_LOW, Attach, Broken, Close, clean

# Time between the two window changes that make a program redraw. It must notice both.
REDRAW_SECONDS = 0.1
# The line that says why a start failed is within this many bytes from the end.
LAST_LINE_BYTES = 1000
NOTICE_CHARACTERS = 300
# A held session is left after this time without a viewer: enough for a reload or a short loss of the network.
LEAVE_SECONDS = 20.0
LEFT = "nobody was here; the session goes on without this page."
ERASED_LINE = b"\r\x1b[2K"
_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
# Where the cursor is put somewhere, a program draws the whole screen, and no line is the last one.
_DRAWN = re.compile(rb"\x1b\[[0-9;]*[Hf]")


class Viewer(Protocol):
    """The attached socket, as a session sees it. Methods return at once and do not raise."""

    tab: str
    """The id of the browser's tab, which may reattach without ``take_over``."""
    source: str
    """The address that it comes from."""
    acked: int
    """The page has parsed the output below this offset. The session sets it when it attaches the viewer."""

    def wake(self) -> None:
        """Notify the viewer that output, or the state or taken input of the session, has changed."""

    async def alive(self) -> bool:
        """Return whether the page answers. Waits without a limit."""

    def end(self, code: int, reason: str) -> None:
        """Close the socket with this WebSocket close code. Only the first call counts."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a session ended, as it is reported to the page. One of the fields is set."""

    code: int | None = None
    """The program's exit status."""
    signal: str | None = None
    """The signal that ended the program, without SIG."""
    reason: str | None = None
    """One sentence for the user, if the program did not end by itself."""
    start: bool = False
    """Whether the program never ran."""

    def summary(self) -> dict[str, object]:
        """Return the ending as pages get it; ``start`` is there only if it is true."""
        started = {"start": True} if self.start else {}
        return {"code": self.code, "signal": self.signal, "reason": self.reason, **started}


class WebSession:
    """One program of one user, with or without a browser attached.

    The socket passes input and window sizes by plain method calls. Output goes into ``output``, from which the viewer
    reads it. At most one viewer is attached. The core uses the methods of ``stream.interfaces.Client``; after the end
    of the session they discard output.

    If the program is held (``place``), this is one client of it: it leaves when no viewer is there, and the program
    goes on. Offsets are those of the program's whole output, the same at every gateway, so what the gateway says is not
    a part of it: it is in ``notice``.
    """

    def __init__(
        self,
        session_id: str,
        identity: Identity,
        owner: Principal,
        profile: str,
        size: TerminalSize,
        place: Place | None = None,
    ) -> None:
        self.id = session_id
        self.identity = identity
        self.owner = owner
        self.profile = profile
        self.size = size
        self.created = time.time()
        self.kept = 0.0
        """Seconds for which it stays listed after its end."""
        self.title = ""
        self.label = ""
        """What its user calls it."""
        self.ends: Callable[[], Mapping[str, float]] = dict
        """Returns when its clocks end it, by monotonic time. The registry sets it."""
        self.attention = Attention()
        self.changed: Callable[[], None] = lambda: None
        """Called whenever the summary may be another. The registry sets it."""
        self.place = place
        """Set if the program is to be held."""
        self.notice = ""
        """What the gateway says now, if the program is to be held."""
        self.left = False
        """Whether it has left a held session, which goes on."""
        self.watchers: tuple[str, ...] = ()
        """The addresses of who watches the held session by a link."""
        self.output = Output()
        self.viewer: Viewer | None = None
        self.ending: Ending | None = None
        self.begun = False
        self.running = False
        self.sized = False
        """Whether a viewer was ever attached."""
        self.received = 0
        """Bytes of input received from all sockets so far."""
        self.taken = 0
        """Bytes of input passed to the program so far."""
        self._input = Flow(INPUT_LIMIT, INPUT_LIMIT)
        self._sizes: list[TerminalSize] = []
        self._settle = False
        self._controlled = Event()
        self._room = Event()
        self._paused = False
        self._gone = Event()
        self._leaving: asyncio.TimerHandle | None = None
        self._reason: str | None = None

    def __repr__(self) -> str:
        seen = "attached" if self.viewer is not None else "detached"
        return f"<WebSession {self.state} {seen}, input {self._input.size}, {self.output!r}{' paused' * self._paused}>"

    @property
    def user(self) -> str:
        """The user to whom the session belongs."""
        return self.identity.user

    @property
    def attached(self) -> bool:
        """True while a socket is attached, or before the first one arrives. Drives the detached timer."""
        return self.viewer is not None or not self.sized

    @property
    def state(self) -> str:
        """``new``, ``starting``, ``running`` or ``ended``."""
        if self.ending is not None:
            return "ended"
        return "running" if self.running else "starting" if self.begun else "new"

    def summary(self) -> dict[str, object]:
        """Return the session as the REST API lists it."""
        ending = self.ending
        return {
            "id": self.id,
            "profile": self.profile,
            "name": self.identity.login.name,
            "state": self.state,
            "attached": self.viewer is not None,
            "source": self.viewer.source if self.viewer is not None else None,
            "created": self.created,
            "cols": self.size.columns,
            "rows": self.size.rows,
            "title": self.title,
            "label": self.label,
            "last": self._last() if self.running else "",
            "ends": {clock: round(time.time() + at - time.monotonic(), -1) for clock, at in self.ends().items()},
            "attention": self.attention.summary(),
            "held": self.held,
            "exit": ending and ending.summary(),
        }

    @property
    def held(self) -> dict[str, str] | None:
        """The name and the id of the held session; ``None`` if the program is not held, or not yet."""
        place = self.place
        return {"name": place.name, "id": place.id} if place is not None and place.name else None

    @property
    def leaving(self) -> bool:
        """Whether it has been ended or left, although the core may still be cleaning up."""
        return self.ending is not None or self._gone.is_set()

    def waits_in(self, sandbox: str | None, held_id: str) -> bool:
        """Whether it waits, without a viewer, in the held session of this id of a sandbox."""
        place = self.place
        here = bool(held_id) and place is not None and place.id == held_id and self.identity.login.name == sandbox
        return here and self.viewer is None and not self.leaving

    @property
    def given(self) -> bool:
        """Whether the gateway has named its sandbox, which ends with it: without a viewer it stays, to be listed."""
        return is_given(self.identity.login.name)

    @property
    def until(self) -> int:
        """The output below this offset is old for a page that begins now."""
        return max(self.output.end, self.replayed)

    @property
    def replayed(self) -> int:
        """The output below this offset is from before the held session was joined."""
        return self.place.replayed if self.place is not None else 0

    # --- from the socket ---

    def attach(self, viewer: Viewer, frame: Attach) -> Start:
        """Attach a viewer and return where its output begins. A viewer that is attached already is closed.

        Raises:
            Broken: the session is attached to another tab, and the frame does not have ``take_over``.
        """
        before = self.viewer
        if before is not None and before.tab != viewer.tab and not frame.take_over:
            raise Broken("this session is open in another tab", "attached", Close.ATTACHED)
        if self.place is not None and self.place.id and not self.begun and frame.offset is not None:
            self.place.offset = frame.offset
            self.output.resume(frame.offset)
        start = self.output.begin(frame.offset, frame.cols, frame.rows)
        self.viewer = viewer
        self._stay()
        self.sized = True
        self.attention.forget()
        self.changed()
        viewer.acked = start.offset
        if before is not None:
            before.end(Close.TAKEN_OVER, "another tab has taken over")
        self.resize(frame.cols, frame.rows)
        if start.redraw and self.running:
            self._redraw()
        self._room.set()
        return start

    def detach(self, viewer: Viewer) -> None:
        """Detach a viewer that has gone. No effect if another one is attached."""
        if self.viewer is viewer:
            self.viewer = None
            self._room.set()
            self.changed()
            if self.place is not None and not self.given:
                self._stay()
                self._leaving = asyncio.get_running_loop().call_later(LEAVE_SECONDS, self.leave)

    def type(self, data: bytes) -> None:
        """Queue input for the program. Raises ``Broken`` if more than ``INPUT_LIMIT`` bytes would wait."""
        if self._input.size + len(data) > INPUT_LIMIT:
            raise Broken("more was sent than the program has taken", "input")
        self.received += len(data)
        self._input.put(data)

    def resize(self, columns: int, rows: int) -> None:
        """Set the size of the window."""
        size = TerminalSize.of(columns, rows)
        if size != self.size:
            self.size = size
            self.changed()
            self._sizes.clear()
            self._sizes.append(size)
            self._controlled.set()

    def acknowledged(self) -> None:
        """Report that the viewer's ``acked`` has increased: the program may be able to write again."""
        self._room.set()

    def _redraw(self) -> None:
        size = self.size
        other = TerminalSize(size.columns, size.rows - 1 if size.rows > 1 else 2)
        self._sizes.clear()
        self._sizes += [other, size]
        self._controlled.set()

    # --- from the registry ---

    def end(self, reason: str) -> None:
        """Hang up: the core finds its client gone and ends the program. ``reason`` is shown on the page."""
        if self.ending is None:
            self._reason = self._reason or reason
            self._leave()

    def leave(self) -> bool:
        """Leave the held session, which goes on. Returns false if there is none that would."""
        if self.ending is None and self.held is not None and self.identity.login.name is not None:
            self.left = True
            self._leave()
        elif self.ending is None and self.viewer is None and self.place is not None and self.held is None:
            # Its start takes long: it is left once it is held.
            self._stay()
            self._leaving = asyncio.get_running_loop().call_later(LEAVE_SECONDS, self.leave)
        return self.left

    def over(self) -> None:
        """Report that the session does not run (any more) and the core has cleaned up."""
        if self.ending is None:
            self.ending = Ending(reason=self._reason or (LEFT if self.left else "this session has ended."))
        self._leave()
        if self.viewer is not None:
            self.viewer.wake()

    def named(self, title: str) -> None:
        """Set the title."""
        self.title = title
        self.changed()

    def rename(self, label: str) -> None:
        """Set what its user calls it."""
        self.label = label
        self.changed()

    def _stay(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()

    def _leave(self) -> None:
        self._stay()
        self.changed()
        self._gone.set()
        self._room.set()
        self._input.discard()

    # --- stream.interfaces.Client ---

    async def read(self) -> bytes | None:
        """Return the next input; ``None`` after the session has ended."""
        chunk = await self._input.get()
        if chunk is None:
            return None
        self.taken += len(chunk[1])
        if self.viewer is not None:
            self.viewer.wake()
        return chunk[1]

    async def write(self, stream: int, data: bytes) -> None:
        """Append output. Waits while the viewer has too much to acknowledge; without a viewer it never waits."""
        if self.ending is not None:
            return
        if self.place is not None and stream == STDERR:
            last = data.rpartition(ERASED_LINE)[2]  # chunks are joined
            text = _SEQUENCE.sub("", last[:LAST_LINE_BYTES].decode("utf-8", "replace"))
            self.notice = clean(text, NOTICE_CHARACTERS).removeprefix("sshgate: ").strip()
        elif stream == SCREEN:
            offset, length = SCREEN_HEAD.unpack_from(data)
            end = SCREEN_HEAD.size + length
            self.output.restart(offset, data[end:], data[SCREEN_HEAD.size : end])
        else:
            # One that was attached meanwhile may begin with the oldest byte.
            await self._room.until(lambda: not self._full())
            self.output.append(data)
        if self.viewer is not None:
            self.viewer.wake()
        elif stream != SCREEN and self.attention.feed(data):
            self.changed()
        await self._room.until(lambda: not self._full())

    def _full(self) -> bool:
        viewer = self.viewer
        waiting = self.output.end - viewer.acked if viewer is not None and not self._gone.is_set() else 0
        if waiting > WINDOW_HIGH:
            self._paused = True
        elif waiting <= WINDOW_LOW:
            self._paused = False
        return self._paused

    async def control(self) -> Control:
        """Return the next resize. The first call also shows that the program runs."""
        if not self.running:
            # The core asks for controls only once the program runs.
            self.running = True
            self.changed()
            if self.viewer is not None:
                self.viewer.wake()
        if self._settle:
            # Let the program notice the first size: two changes at once would look like none.
            await asyncio.sleep(REDRAW_SECONDS)
            self._settle = False
        await self._controlled.until(lambda: self._sizes)
        size = self._sizes.pop(0)
        self._settle = bool(self._sizes)
        return Resize(size)

    def changed_there(self, state: State) -> None:
        """Take note of the state of the held session, as its resident reports it."""
        self.watchers = state.watchers
        if self.viewer is not None:
            self.viewer.wake()

    async def alive(self) -> bool:
        """Return whether somebody is at the page; else leave. Somebody else who logs in wants the held session."""
        if self.viewer is None:
            if self.sized:
                self.leave()
            return not self.sized  # its first socket is still to come
        return await self.viewer.alive()

    def progress(self) -> int | None:
        """Return how much the page has parsed while output waits for it; ``None``: it has all, or is not there."""
        return self.viewer.acked if self.viewer is not None and self.output.end > self.viewer.acked else None

    async def wait_closed(self) -> None:
        await self._gone.wait()

    async def finish(self, outcome: Outcome) -> None:
        if self.ending is None:
            # After a hang-up the reason for it matters, not how the program reacted.
            self.ending = self._ending(outcome) if self._reason is None else Ending(reason=self._reason)
        self._leave()
        if self.viewer is not None:
            self.viewer.wake()

    def _ending(self, outcome: Outcome) -> Ending:
        if isinstance(outcome, Exited):
            if not self.running:
                # The core has written why as the last line.
                last = self.notice if self.place is not None else self._last().removeprefix("sshgate: ")
                return Ending(code=outcome.status, reason=last or None, start=True)
            return Ending(code=outcome.status)
        if isinstance(outcome, Signalled):
            return Ending(signal=outcome.name)
        assert isinstance(outcome, Lost)
        return Ending(reason=outcome.reason, start=not self.running)

    def _last(self) -> str:
        """Return the last line of the output that is not empty; none if the program draws the whole screen."""
        data = self.output.read(max(self.output.start, self.output.end - LAST_LINE_BYTES), LAST_LINE_BYTES)
        if _DRAWN.search(data):
            return ""
        lines = [_SEQUENCE.sub("", line) for line in re.split("[\r\n]+", data.decode("utf-8", "replace"))]
        return next((clean(line, LAST_LINE_BYTES) for line in reversed(lines) if line.strip()), "")
