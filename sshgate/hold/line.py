"""One exec by which a gateway is attached to the resident of a sandbox: starting it, and frames in both directions.

The resident is in its user's hands, so each frame is treated as a stranger's.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from sshgate.config.values import is_label
from sshgate.errors import GateError, StartFailed
from sshgate.hold import frames, replies, resident, screen, terminal
from sshgate.hold.frames import FULL, HEAD, HELLO, SIZE, Kind
from sshgate.sandbox.enter import launch, park
from sshgate.sandbox.framing import FrameReader, ProtocolError
from sshgate.sandbox.interfaces import Sandbox
from sshgate.sandbox.launcher import RESIDENT_MARK, Program, quote
from sshgate.stream import modes, turns
from sshgate.stream.flow import Flow
from sshgate.stream.interfaces import STDOUT, Exec, Exited, Lost, Process, Request
from sshgate.stream.tasks import Event
from sshgate.stream.terminal import TerminalSize

# Seconds for the resident's first line. python3 starts in some 20 ms, on a very busy node in seconds.
HELLO_SECONDS = 20.0
# Seconds for an answer about its sessions.
ANSWER_SECONDS = 10.0
# Seconds for a sign of life of one to which an exec was attached long ago. It takes a millisecond.
SIGN_SECONDS = 1.0
# Sessions of another version that a sentence names.
MOST_NAMED = 5
# Bytes of a frame's payload at most. A resident of ours never sends more.
LONGEST = 64 * 1024
# Bytes of the resident's program that are sent at a time. A TLS connection keeps a buffer for the largest write that it
# had, and in a warm pod it waits for hours.
PIECE = 4096
# Bytes of frames that wait for the exec: above this, only input that was promised a place is queued.
OUTBOX_HIGH = 256 * 1024

_HELLO = re.compile(rb"sshgate hold [0-9]{1,9}\n")
LONGEST_HELLO = 23
NONE = b"none\n"
NO_PLACE = b"sshgate hold no place\n"
OTHER_VERSION = "another version of sshgate keeps this session; only a gateway of that version can show it."
MISSING = b"sshgate hold starts\n"
"""Printed by the program that attaches where no resident runs: its source follows."""


Taker = Callable[[int, bytes], Iterator[None]]
"""Takes a frame's kind and payload; what it yields are steps of a budget."""


def _source() -> bytes:
    """The resident's program: its modules in one, without their imports of each other."""
    text = ["from __future__ import annotations\n"]
    for module in (modes, replies, frames, screen, terminal, resident):
        lines = Path(str(module.__file__)).read_text().splitlines(keepends=True)
        for node in ast.parse("".join(lines)).body:
            ours = isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in (
                "sshgate",
                "__future__",
            )
            if ours:
                lines[node.lineno - 1 : node.end_lineno] = [""] * ((node.end_lineno or 0) - node.lineno + 1)
        text += lines
    return "".join(text).encode()


SOURCE = _source()

# Looks for a resident in the directories of its user, else becomes one. Nobody else may have made the directory. With
# an argument, a resident of another version without programs is ended first. `_socket` is quicker: `socket` imports
# more than all the rest.
_ATTACH = f"""{RESIDENT_MARK}
import array,os,stat,sys,time
import _socket as socket
if sys.version_info<(3,7):
    os.write(1,{NONE!r})
    os._exit(0)
N={len(SOURCE)}
P=[p+"/.sshgate-%d"%os.getuid() for p in("/tmp","/dev/shm",os.environ.get("HOME","/tmp"))]
def mine(p):
    try:
        s=os.lstat(p)
        return stat.S_ISDIR(s.st_mode) and s.st_uid==os.getuid() and not s.st_mode&63
    except OSError:
        return False
def ended(p,s):
    if open(p+"/lock","rb").read(64)=={HELLO!r}:
        return False
    i=array.array("i",s.getsockopt(socket.SOL_SOCKET,socket.SO_PEERCRED,12))[0]
    try:
        if open("/proc/%d/task/%d/children"%(i,i)).read():
            return False
    except OSError:
        pass
    os.kill(i,9)
    time.sleep(.1)
    return True
def attach(p):
    s=socket.socket(socket.AF_UNIX,socket.SOCK_STREAM)
    try:
        s.connect(p+"/socket")
        if sys.argv[1:] and ended(p,s):
            return
    except OSError:
        return
    try:
        s.sendmsg([b"p"],[(socket.SOL_SOCKET,socket.SCM_RIGHTS,array.array("i",[0,1]))])
        s.recv(1)
    except OSError:
        return
    os._exit(0)
for p in P:
    if mine(p):
        attach(p)
os.write(1,{MISSING!r})
b=b""
while len(b)<N:
    d=os.read(0,N-len(b))
    if not d:
        os._exit(1)
    b+=d
for p in P:
    try:
        os.mkdir(p,448)
    except OSError:
        pass
    if mine(p):
        break
else:
    os.write(1,{NO_PLACE!r})
    os._exit(1)
r,w=os.pipe()
if not os.fork():
    os.setsid()
    if os.fork():
        os._exit(0)
    n=os.open("/dev/null",os.O_RDWR)
    for f in 0,1,2:
        os.dup2(n,f)
    os.close(r)
    g={{"__name__":"resident"}}
    exec(compile(b,"resident","exec"),g)
    g["main"](p,w)
os.close(w)
os.wait()
os.read(r,1)
for i in range(40):
    attach(p)
    time.sleep(.05)
os._exit(1)
"""
# -I and -S: faster, and files in the sandbox cannot change what is imported.
_START = "command -v python3 >/dev/null 2>&1&&exec python3 -IS -c " + quote(_ATTACH.encode()).decode()


class NoResident(GateError):
    """No resident of ours can be attached to."""

    code = "missing"


class CannotHold(NoResident):
    """The sandbox holds no sessions: it has no python3 that can run the resident, or no place for it."""


class OtherVersion(NoResident):
    """Sessions run that are kept by a resident with which this version of sshgate cannot speak."""


class Broken(StartFailed):
    """The exec, or the resident, ended before it answered. Another attempt finds the resident, or starts one."""


class SessionGone(StartFailed):
    """The session to be resumed does not exist any more."""


class Line:
    """An attached exec. The caller of ``open`` closes it.

    ``send`` queues frames and never waits; ``read`` returns them as they come.
    """

    def __init__(self, process: Process, rest: bytes) -> None:
        self._process = process
        self._reader = FrameReader(HEAD, LONGEST)
        self._budget = turns.budget()
        self._rest = rest
        self.room = Event()
        """Set while the exec takes what is queued."""
        self.room.set()
        self._outbox = Flow(OUTBOX_HIGH, OUTBOX_HIGH // 2, self.room.clear, self.room.set)
        self._writer = asyncio.create_task(self._write())

    def __repr__(self) -> str:
        return f"<Line {self._process!r} {self._outbox!r}>"

    @classmethod
    async def open(cls, sandbox: Sandbox) -> Line:
        """Attach to the sandbox's resident; start one where there is none. Cancelling ends the exec.

        Raises as ``find``.
        """
        parked = sandbox.parked("resident")
        if parked is not None:
            return cls(parked, b"")
        if (kept := sandbox.parked("kept")) is not None:
            line, there = cls(kept, b""), False
            try:
                there = await line.answers()
            finally:
                if not there:
                    await line.close()
            if there:
                return line
        return await cls.fresh(sandbox)

    @classmethod
    async def fresh(cls, sandbox: Sandbox, to_park: bool = False) -> Line:
        """As ``open``, by an exec of its own.

        A resident of another version that keeps nothing is replaced. Raises as ``find``, and ``OtherVersion``.
        """
        line, hello = await cls._begin(sandbox, SOURCE, to_park)
        if hello != HELLO:
            try:
                listed = json.loads(await line.ask(Kind.LIST) or b"")
                names = [str(one["name"])[:80] for one in listed if not one["status"]]
            except (ValueError, TypeError, KeyError, RecursionError, ProtocolError) as error:
                raise NoResident("what keeps sessions in the sandbox broke its rules.") from error
            finally:
                await line.close()
            if not names:
                line, hello = await cls._begin(sandbox, SOURCE, to_park, replaces=True)
            if hello != HELLO:
                await line.close()
                raise OtherVersion(_other_version(names))
        return line

    @classmethod
    async def find(cls, sandbox: Sandbox, joins: bool = False) -> Line | None:
        """Attach to the sandbox's resident, of whichever version, to list or end sessions; ``None``: there is none.

        Raises:
            CannotHold: the sandbox has no python3 that can run it.
            NoResident: what answers is none of ours, or takes nobody else.
            OtherVersion: a session is to be joined, and it is of another version.
            StartFailed: it does not answer; otherwise as ``Sandbox.start``.
        """
        line, hello = await cls._begin(sandbox, b"")
        if hello and (hello == HELLO or not joins):
            return line
        await line.close()
        if hello:
            raise OtherVersion(OTHER_VERSION)
        return None

    @classmethod
    async def _begin(
        cls, sandbox: Sandbox, source: bytes, to_park: bool = False, replaces: bool = False
    ) -> tuple[Line, bytes]:
        try:
            return await cls._try(sandbox, source, to_park, replaces)
        except Broken:
            return await cls._try(sandbox, source, to_park, replaces)

    @classmethod
    async def _try(cls, sandbox: Sandbox, source: bytes, to_park: bool, replaces: bool) -> tuple[Line, bytes]:
        start = _START + " replace" * replaces + ";echo none"
        process = await park(sandbox, None, fresh=to_park, plain=None if to_park else ("/bin/sh", "-c", start))
        try:
            if process.pid is not None:
                await launch(process, Program(Request(Exec(start.encode())), shell="/bin/sh"))
            async with asyncio.timeout(HELLO_SECONDS):
                hello, rest = await _hello(process, source)
        except TimeoutError as error:
            await process.close()
            raise StartFailed("what keeps sessions in the sandbox did not answer within 20 s; try again.") from error
        except BaseException:
            await process.close()
            raise
        return cls(process, rest), hello

    async def answers(self) -> bool:
        """Whether the resident is still there: the connection has waited, and may be lost without a sign."""
        answers: list[int] = []

        def take(kind: int, payload: bytes) -> Iterator[None]:
            answers.append(kind)
            yield

        self.send(Kind.PING)
        with contextlib.suppress(TimeoutError, ProtocolError):
            async with asyncio.timeout(SIGN_SECONDS):
                while not answers and await self.read(take):
                    pass
        return answers == [Kind.PONG]

    def take(self) -> Process:
        """Give up the exec, which has joined nothing and printed nothing but its first line, to be parked."""
        self._writer.cancel()
        self._budget.close()
        return self._process

    async def ask(self, kind: int, payload: bytes = b"") -> bytes | None:
        """Send what one LISTED answers. Returns its payload; ``None``: there is no such session.

        Raises:
            StartFailed: no answer comes; ``Broken``: none will.
            ProtocolError: no resident answers like this.
        """
        answers: list[bytes | None] = []

        def take(found: int, answer: bytes) -> Iterator[None]:
            answers.append(answer if found == Kind.LISTED else None)
            yield

        self.send(kind, payload)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                while not answers and await self.read(take):
                    pass
        except TimeoutError as error:
            raise StartFailed("what keeps sessions in the sandbox does not answer; try again.") from error
        if not answers:
            raise Broken("what keeps sessions in the sandbox was ended; try again.")
        return answers[0]

    def send(self, kind: int, payload: bytes = b"") -> None:
        """Queue a frame."""
        self._outbox.put(HEAD.pack(kind, len(payload)) + payload)

    async def read(self, take: Taker) -> bool:
        """Take the frames that come next. Returns false once the exec has ended.

        Raises:
            ProtocolError: no resident sends such a frame; also what ``take`` raises.
        """
        data, self._rest = self._rest, b""
        while not data:
            chunk = await self._process.read()
            if chunk is None:
                return False
            if chunk[0] == STDOUT:
                data = chunk[1]
        await self._budget.run(self._steps(data, take))
        return True

    def _steps(self, data: bytes, take: Taker) -> Iterator[None]:
        for kind, payload in self._reader.feed(data):
            yield from take(kind, payload)
            yield

    async def close(self) -> None:
        """End the exec; the sessions go on. Idempotent; never raises."""
        self._outbox.discard()
        self._budget.close()
        self._writer.cancel()
        # First, so that a cancellation leaves nothing open.
        await self._process.close()
        await asyncio.gather(self._writer, return_exceptions=True)

    async def _write(self) -> None:
        while (chunk := await self._outbox.get()) is not None:
            await self._process.write(chunk[1])


async def park_resident(sandbox: Sandbox) -> Process | None:
    """Start a resident in a warm sandbox and attach to it, to be parked. ``None``: the sandbox cannot have one.

    Raises as ``Line.find``. Cancelling ends the exec.
    """
    try:
        line = await Line.fresh(sandbox, to_park=True)
    except NoResident:
        return None
    return line.take()


async def attach_idle(sandbox: Sandbox) -> Process | None:
    """Attach to the resident of a sandbox, to be parked. ``None``: none runs there.

    Raises as ``Line.find``. Cancelling ends the exec.
    """
    line = await Line.find(sandbox, joins=True)
    return None if line is None else line.take()


async def _hello(process: Process, source: bytes) -> tuple[bytes, bytes]:
    """Wait for the resident's first line; send its source if that is missing.

    Returns the line, empty where nothing runs and there is no source, and the output after it.
    """
    seen = bytearray()
    length = searched = 0
    while length <= LONGEST:
        if (chunk := await process.read()) is None:
            # An API server may report a broken connection as success.
            outcome = await process.wait()
            if (isinstance(outcome, Lost) or outcome == Exited(0)) and not seen.endswith((NONE, FULL)):
                raise Broken("the connection to the sandbox broke; try again.")
            break
        length += len(chunk[1])
        if chunk[0] != STDOUT:
            continue
        seen += chunk[1]
        if seen == MISSING:
            if not source:
                return b"", b""
            for at in range(0, len(source), PIECE):
                await process.write(source[at : at + PIECE])
            seen.clear()
        elif found := _HELLO.search(seen, searched):
            return bytes(found[0]), bytes(seen[found.end() :])
        searched = max(0, len(seen) - LONGEST_HELLO)
    if seen.endswith(FULL):
        raise NoResident("the sandbox's sessions have as many clients as they may; close some.")
    if seen.endswith(NO_PLACE):
        raise CannotHold("the sandbox's user can write neither to /tmp nor to /dev/shm nor to its home.")
    if seen.endswith(NONE):
        raise CannotHold("the sandbox has no python3 that could keep sessions; install python3 in its image.")
    # Such as a lack of memory: sessions may run.
    raise NoResident("what keeps sessions in the sandbox could not be started; try again.")


def _other_version(names: list[str]) -> str:
    listed = ", ".join(one if is_label(one) else "?" for one in names[:MOST_NAMED]) or "some"
    return (
        f"sessions of another version of sshgate run in the sandbox ({listed}), which only that one can join; go on "
        "with them at a gateway of that version, or end them by `ssh -s USER=NAME=SESSION@HOST end-session`."
    )


def packed(size: TerminalSize) -> bytes:
    """Return a size as frames have it."""
    return SIZE.pack(size.columns, size.rows, size.pixel_width, size.pixel_height)
