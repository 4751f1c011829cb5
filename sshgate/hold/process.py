"""A program on a terminal that the resident of a sandbox keeps: a ``Process`` that outlives its exec."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from sshgate.errors import GateError, StartFailed
from sshgate.hold.answers import GONE, Past, State, joined_of, offset_of, outcome_of, printable, refusal_of, state_of
from sshgate.hold.frames import OFFSET, Kind
from sshgate.hold.line import Broken, CannotHold, Line, OtherVersion, SessionGone, packed
from sshgate.hold.screen import for_empty, put_back
from sshgate.hold.signs import Alive, Progress, Signs, nothing_known
from sshgate.hold.wishes import SCREEN, SCREEN_HEAD, Wish
from sshgate.sandbox.framing import ProtocolError
from sshgate.sandbox.interfaces import Sandbox
from sshgate.sandbox.launcher import Program, held_script
from sshgate.sandbox.process import END_OF_TRANSMISSION
from sshgate.stream.flow import Flow
from sshgate.stream.interfaces import STDERR, STDOUT, Break, Control, Lost, Outcome, Resize, Shell, Signal
from sshgate.stream.modes import Modes
from sshgate.stream.tasks import Event, cancel, within
from sshgate.stream.terminal import TerminalSize

# Bytes of output buffered for the client.
HIGH_WATER = 128 * 1024
LOW_WATER = 32 * 1024
# Bytes of input that the resident has not reported as taken: they are sent again by the next exec.
KEPT_INPUT = 64 * 1024
INPUT_CHUNK = 16 * 1024
# Output whose modes are followed in one step of the budget.
STEP = 4096
# Seconds: until the resident answers a login; between two signs of life; without one.
JOIN_SECONDS = 20.0
PING_SECONDS = 15.0
SILENT_SECONDS = 40.0
# Seconds between attempts to attach again; and how often an exec may be lost soon after it was opened.
PAUSES = (0.2, 0.5, 1.0, 2.0)
SOON_SECONDS = 5.0
MOST_SOON = 5
# Seconds that the last input has to be taken when a client leaves.
LEAVE_SECONDS = 0.5
# Seconds that the resident has to take note of what its client knows; on a busy node an exec is slow.
REPORT_SECONDS = 3.0
# Seconds in which a client that has ended its input may turn out to have left.
EOF_SECONDS = 0.5
# Bytes of a screen at most. It has up to 256 KiB of output, and the modes.
LARGEST_SCREEN = 512 * 1024
# How often a program is hung up, and the seconds that it has to end each time.
END_TRIES = 3
END_SECONDS = 1.0

CONNECTED = b"\r\x1b[2K"
REOPENING = b"\r\nsshgate: the connection to the sandbox broke; your program runs on, connecting again...\r\n"
TAMPERED = "what keeps this session in the sandbox broke its rules; the session may run on, log in again to see."


class HeldProcess:
    """One client's end of a held session. The caller of ``attach`` closes it; the session goes on.

    When the exec breaks, it is opened again, and input and output go on where they were, exactly once.
    """

    def __init__(
        self, sandbox: Sandbox, line: Line, wish: Wish, alive: Alive, progress: Progress = nothing_known
    ) -> None:
        self.pid: int | None = None
        self.name = ""
        """The session's name, after ``launch``."""
        self.session = ""
        """Its id, after ``launch``."""
        self.made = False
        """Whether ``launch`` has begun the session."""
        self.past: list[Past] = []
        """Sessions that ended while nobody was attached."""
        self.replayed = 0
        """The output below this offset is from before ``launch``: nothing of it waits for an answer."""
        self.changed: Callable[[State], None] = lambda state: None
        """Called with each new state of the session; set it before ``launch``. Must not raise."""
        self._sandbox = sandbox
        self._line: Line | None = line
        self._wish = wish
        self._client = secrets.token_hex(16)
        self._size = TerminalSize()
        # Of a client with a place: the screen whose frames are coming, and the last whole one, in the flow as one byte.
        self._drawn = bytearray()
        self._drawing = False
        self._screen = b""
        self._room = Event()
        self._room.set()
        self._flow = Flow(HIGH_WATER, LOW_WATER, self._room.clear, self._room.set)
        self._modes = Modes()
        self._offset = 0
        self._unacknowledged = bytearray()
        self._acknowledged = 0
        self._input_room = Event()
        self._outcome: Outcome | None = None
        self._finished = Event()
        self._joined: asyncio.Future[None] | None = None
        self._last_frame = 0.0
        self._line_open = self._reopened = False
        self._scripted = False
        self._agent = ""
        self._answered = Event()
        self._signs = Signs(alive, progress, lambda: self._send(Kind.ALIVE))
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = self._outcome or ("running" if self._line is not None else "connecting again")
        return f"<HeldProcess {self.name} {self._flow!r} {len(self._unacknowledged)} bytes not taken, {state}>"

    @classmethod
    async def attach(
        cls, sandbox: Sandbox, wish: Wish, alive: Alive, progress: Progress = nothing_known
    ) -> HeldProcess:
        """Attach to the resident of a sandbox. No session is joined yet. Cancelling ends the exec.

        Raises:
            NoResident: it keeps no session of this client.
            GateError: as ``Line.open``.
        """
        return cls(sandbox, await Line.open(sandbox), wish, alive, progress)

    async def launch(self, program: Program) -> None:
        """Join the wished session, or begin one that runs ``program``. The screen comes by ``read``.

        Raises:
            BadRequest: no kernel would start such a program.
            LimitReached: the sandbox has as many sessions as it may have.
            StartFailed: the resident does not answer, or cannot start it.
        """
        terminal = program.request.terminal
        assert terminal is not None
        self._size, self._scripted = terminal.size, terminal.scripted
        if self._wish.agents:
            # The variable is the session's own, because an agent's socket goes with its login.
            environment = dict(program.environment)
            self._agent = os.fsdecode(environment.pop("SSH_AUTH_SOCK", b""))
            program = replace(program, environment=environment)
        asks = program.request.kind
        command = getattr(asks, "command", b"").decode("utf-8", "replace")
        if self._wish.id:
            at = {"offset": self._wish.offset} if self._wish.how == "resume" else {}
            wish: dict[str, Any] = {"how": self._wish.how, "id": self._wish.id, **at}
        else:
            wish = {
                "how": self._wish.how,
                "name": self._wish.name,
                "program": printable(command) if command else "shell",
                "shell": os.path.basename(program.shell) if isinstance(asks, Shell) else "",  # noqa: PTH119
                "detached": self._wish.detached,
                "most": self._wish.most,
                "agents": self._wish.agents,
                "script": base64.b64encode(held_script(program)).decode(),
            }
        try:
            await self._join(wish)
        except Broken:
            # A resident that keeps nothing may end at this moment. Who watches begins no other.
            if self._wish.how == "watch" or not self._sandbox.usable:
                raise
            await self._drop_line()
            self._line = await Line.fresh(self._sandbox)
            await self._join(wish)
        self._task = asyncio.create_task(self._keep())

    # --- Process ---

    async def read(self) -> tuple[int, bytes] | None:
        chunk = await self._flow.get()
        if chunk is None:
            self._finished.set()
            return None
        if chunk[0] == SCREEN:
            screen, self._screen = self._screen, b""
            return SCREEN, screen
        return (STDERR if chunk[0] == STDERR else STDOUT), chunk[1]

    async def write(self, data: bytes) -> None:
        """See ``Process``. While the exec is opened again, up to ``KEPT_INPUT`` bytes are kept."""
        if data:
            self._line_open = data[-1:] != b"\n"
        for at in range(0, len(data), INPUT_CHUNK):
            piece = data[at : at + INPUT_CHUNK]
            await self._room_for(len(piece))
            if self._outcome is not None:
                return
            offset = self._acknowledged + len(self._unacknowledged)
            self._unacknowledged += piece
            self._send(Kind.INPUT, OFFSET.pack(offset) + piece)

    async def _room_for(self, size: int) -> None:
        while self._outcome is None:
            if self._line is not None and not self._line.room.is_set():
                await self._line.room.wait()  # a resident may report input as taken without reading any
            elif len(self._unacknowledged) + size > KEPT_INPUT:
                self._input_room.clear()
                await self._input_room.wait()
            else:
                return

    async def write_eof(self) -> None:
        """See ``Process``. A terminal whose window is closed ends its input as well, which must not end the session."""
        if not self._scripted:
            await asyncio.sleep(EOF_SECONDS)
        await self.write(END_OF_TRANSMISSION * (2 if self._line_open else 1))

    async def control(self, control: Control) -> None:
        match control:
            case Resize(size):
                self._size = size
                self._send(Kind.RESIZE, packed(size))
            case Signal(name):
                self._send(Kind.SIGNAL, b"g" + name.encode("ascii", "replace")[:16])
            case Break():
                self._send(Kind.SIGNAL, b"fINT")

    async def wait(self) -> Outcome:
        await self._finished.wait()
        assert self._outcome is not None
        return self._outcome

    async def report(self, *sessions: str) -> None:
        """The client knows how these sessions have ended, or this one. They are not reported to others again."""
        if self._line is None:
            return
        self._answered.clear()
        self._line.send(Kind.REPORTED, " ".join(sessions or (self.session,)).encode())
        await within(REPORT_SECONDS, self._answered.wait())

    async def close(self) -> None:
        """Leave the session, which goes on, after what was typed last was taken. Idempotent; never raises."""
        self._flow.discard()
        await within(LEAVE_SECONDS, self._input_room.until(
            lambda: not self._unacknowledged or self._line is None or self._outcome is not None
        ))  # fmt: skip
        self._end(Lost("the session was closed."))
        self._finished.set()
        if self._task is not None:
            await cancel(self._task)
        await self._signs.close()
        await self._drop_line()

    async def end(self) -> bool:
        """Hang up the session's program, wait a moment for its end, and report that. Returns whether it has ended."""
        for _ in range(END_TRIES):  # a shell that is just starting may miss the first one
            self._send(Kind.SIGNAL, b"h")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_SECONDS):
                    while await self.read():
                        pass
                await self.report()
                break
        return self._outcome is not None and not isinstance(self._outcome, Lost)

    def put_back(self) -> bytes:
        """Return what brings the client's terminal back to how it was before it attached."""
        return put_back(self._modes, bool(self.session) and not self.made)

    # --- the exec ---

    def _send(self, kind: int, payload: bytes = b"") -> None:
        """Queue a frame. All but input is dropped while the exec takes nothing."""
        if self._line is not None and self._outcome is None and (kind == Kind.INPUT or self._line.room.is_set()):
            self._line.send(kind, payload)

    async def _join(self, wish: dict[str, Any]) -> None:
        """Send a wish and take frames until it is answered."""
        line = self._line
        assert line is not None
        size = self._size
        wish |= {
            "client": self._client,
            "states": True,
            "types": self._wish.types,
            "from": self._wish.source,
            "agent": self._agent,
            "size": [size.columns, size.rows, size.pixel_width, size.pixel_height],
        }
        self._joined = asyncio.get_running_loop().create_future()
        line.send(Kind.JOIN, json.dumps(wish).encode())
        try:
            async with asyncio.timeout(JOIN_SECONDS):
                while not self._joined.done():
                    if not await line.read(self._take):
                        raise Broken("what keeps sessions in the sandbox was ended; try again.")
        except TimeoutError as error:
            raise StartFailed("what keeps sessions in the sandbox did not answer within 20 s; try again.") from error
        except ProtocolError as error:
            raise (SessionGone if self.session else StartFailed)(TAMPERED) from error
        self._joined.result()
        self._last_frame = time.monotonic()

    async def _keep(self) -> None:
        """Take frames until the session has ended, through as many execs as needed."""
        soon = 0
        try:
            while self._outcome is None:
                began = time.monotonic()
                await self._carry()
                if self._outcome is not None:
                    return
                soon = soon + 1 if time.monotonic() - began < SOON_SECONDS else 0
                if soon > MOST_SOON or not self._sandbox.usable or not await self._attach_again():
                    self._end(Lost(await self._reason()))
        except ProtocolError:
            self._end(Lost(TAMPERED))
        finally:
            self._end(Lost(TAMPERED))
            await self._drop_line()

    async def _reason(self) -> str:
        if not self._sandbox.usable:
            return "the sandbox has ended, and the session with it."
        return f"the connection to the sandbox was lost; log in again to go on with session {self.name}."

    async def _carry(self) -> None:
        """Take frames from this exec until it, or the session, has ended."""
        line = self._line
        assert line is not None
        pinging = asyncio.create_task(self._ping(line))
        try:
            # After the session's end too: the resident waits for the report.
            while await line.read(self._take):
                # What the client does not read stays in the pipes, and stops the program in the end.
                await self._signs.room(self._room)
        finally:
            await cancel(pinging)
            await self._drop_line()

    async def _ping(self, line: Line) -> None:
        while True:
            await asyncio.sleep(PING_SECONDS)
            if line.room.is_set():
                line.send(Kind.PING)
            # While the client does not read, nothing can be expected.
            if self._room.is_set() and time.monotonic() - self._last_frame > SILENT_SECONDS:
                await line.close()

    async def _attach_again(self) -> bool:
        """Open another exec, and go on from the offsets. Returns whether that succeeded in time."""
        placed = self._wish.placed
        self._flow.put(REOPENING, STDERR if placed else 0)
        until = time.monotonic() + self._wish.reattach
        attempt = 0
        while self._sandbox.usable:
            try:
                how = "watch" if self._wish.how == "watch" else "resume"
                async with asyncio.timeout(until - time.monotonic()):
                    # Who watches begins nothing where no resident runs.
                    find = Line.find(self._sandbox, joins=True) if how == "watch" else Line.open(self._sandbox)
                    self._line = await find
                if self._line is None:
                    raise SessionGone(GONE)
                redraw = not placed or self._drawing
                self._drawn.clear()
                self._drawing = False
                await self._join({"how": how, "id": self.session, "offset": self._offset, "redraw": redraw})
            except TimeoutError:
                return False
            except GateError as error:
                await self._drop_line()
                if isinstance(error, SessionGone | CannotHold | OtherVersion):
                    self._end(Lost(str(error) if isinstance(error, SessionGone) else GONE))
                    return True
                pause = PAUSES[min(attempt, len(PAUSES) - 1)]
                if time.monotonic() + pause > until:
                    return False
                await asyncio.sleep(pause)
                attempt += 1
                continue
            for at in range(0, len(self._unacknowledged), INPUT_CHUNK):
                piece = bytes(self._unacknowledged[at : at + INPUT_CHUNK])
                self._send(Kind.INPUT, OFFSET.pack(self._acknowledged + at) + piece)
            if placed:
                self._reopened = True
                self._flow.put(CONNECTED, STDERR)
            return True
        return False

    async def _drop_line(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            await line.close()

    def _end(self, outcome: Outcome) -> None:
        if self._outcome is None:
            self._outcome = outcome
            self._flow.put_eof()
            self._room.set()
            self._input_room.set()

    # --- frames, none of which is trusted ---

    def _take(self, kind: int, payload: bytes) -> Iterator[None]:
        self._last_frame = time.monotonic()
        if kind in (Kind.OUTPUT, Kind.SCREEN):
            yield from self._shown(kind, payload)
        elif kind == Kind.TAKEN:
            self._taken(offset_of(payload))
        elif kind == Kind.PROBE:
            self._signs.ask()
        elif kind == Kind.ENDED:
            self._end(outcome_of(payload))
        elif kind == Kind.JOINED:
            self._begin(payload)
        elif kind == Kind.FAILED:
            self._refuse(payload)
        elif kind == Kind.PONG:
            self._answered.set()
        elif kind == Kind.STATE:
            self.changed(state_of(payload))
        else:
            raise ProtocolError("a frame that no resident sends")

    def _shown(self, kind: int, payload: bytes) -> Iterator[None]:
        offset, data = offset_of(payload), payload[OFFSET.size :]
        # Before the answer to JOIN nothing would hold it back while the client does not read.
        if self._joined is None or not self._joined.done() or not self.session or self._outcome is not None:
            raise ProtocolError("output without a session")
        if kind == Kind.OUTPUT and not self._drawing:
            if offset != self._offset:
                raise ProtocolError("output from another offset")
        elif offset < self._offset:
            raise ProtocolError("a screen from before")
        if kind == Kind.OUTPUT:
            if self._drawing:
                self._put_screen(offset)
            self._offset = offset + len(data)
        elif not self._wish.placed:
            self._offset = offset
        elif not self._drawing:
            self._drawing, self._modes = True, Modes()
        for at in range(0, len(data), STEP):
            self._modes.feed(data[at : at + STEP])
            yield
        if kind == Kind.OUTPUT or not self._wish.placed:
            self._flow.put(data)
        else:
            self._drawn += data
            if len(self._drawn) > LARGEST_SCREEN:
                raise ProtocolError("a screen that is too large")

    def _put_screen(self, offset: int) -> None:
        """A screen is complete when output follows, which may be empty. It stands for all output before it."""
        self._flow.drop()
        modes = self._modes.sequences()
        self._screen = SCREEN_HEAD.pack(offset, len(modes)) + modes + for_empty(bytes(self._drawn))
        self._drawn.clear()
        self._drawing = False
        self._flow.put(b"s", SCREEN)
        if self._reopened:
            self._flow.put(CONNECTED, STDERR)  # may just have been dropped

    def _taken(self, taken: int) -> None:
        count = taken - self._acknowledged
        if count > len(self._unacknowledged):
            raise ProtocolError("input taken that was not sent")
        if count <= 0:
            return  # a new exec has reported what has come, before the program took it
        self._acknowledged = taken
        del self._unacknowledged[:count]
        self._input_room.set()

    def _begin(self, payload: bytes) -> None:
        """Take JOINED. Raises ``ProtocolError`` if it is not what a resident sends."""
        answer, joined = joined_of(payload), self._joined
        if joined is None or joined.done() or (self.session and answer.id != self.session):
            raise ProtocolError("another session")
        if not self.session:
            resumes = self._wish.how == "resume"
            if (self._wish.id or answer.id) != answer.id or (resumes and answer.offset != self._wish.offset):
                raise ProtocolError("another session or offset")
            self.made, self.past = answer.made, answer.past
            self.replayed = answer.end if resumes else 0
            # An empty terminal holds nothing until its screen is whole, which may be after another exec.
            fresh = self._wish.placed and not resumes
            self._drawing = fresh and answer.offset > 0
            self._offset = 0 if fresh else answer.offset
        elif answer.offset != self._offset:
            raise ProtocolError("another offset")
        self.name, self.session, self.pid = answer.name, answer.id, answer.pid
        self._taken(answer.received)
        joined.set_result(None)

    def _refuse(self, payload: bytes) -> None:
        if self._joined is None or self._joined.done():
            raise ProtocolError("a refusal of nothing")
        self._joined.set_exception(refusal_of(payload, self._wish.most, self._wish.of_user))
