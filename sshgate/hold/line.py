"""One exec by which a gateway is attached to the resident of a sandbox: starting it, and frames in both directions.

The resident is in its user's hands, so each frame is treated as a stranger's.
"""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from sshgate.errors import GateError, StartFailed
from sshgate.hold import frames, replies, resident, screen, terminal
from sshgate.hold.frames import FULL, HEAD, HELLO, SIZE
from sshgate.sandbox.enter import launch, park
from sshgate.sandbox.interfaces import Sandbox
from sshgate.sandbox.launcher import RESIDENT_MARK, Program, quote
from sshgate.stream import modes, turns
from sshgate.stream.flow import Flow
from sshgate.stream.interfaces import STDOUT, Exec, Lost, Process, Request
from sshgate.stream.tasks import Event
from sshgate.stream.terminal import TerminalSize

# Seconds for the resident's first line. python3 starts in some 20 ms, on a very busy node in seconds.
HELLO_SECONDS = 20.0
# Bytes of a frame's payload at most. A resident of ours never sends more.
LONGEST = 64 * 1024
# Bytes of frames that wait for the exec: above this, only input that was promised a place is queued.
OUTBOX_HIGH = 256 * 1024

_HELLO = re.compile(rb"sshgate hold [0-9]{1,9}\n")
NONE = b"none\n"
NO_PLACE = b"sshgate hold no place\n"
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

# Looks for a resident in the directories of its user, else becomes one. Nobody else may have made the directory.
_ATTACH = f"""{RESIDENT_MARK}
import array,os,socket,stat,sys,time
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
def attach(p):
    s=socket.socket(socket.AF_UNIX,socket.SOCK_STREAM)
    try:
        s.connect(p+"/socket")
    except OSError:
        return
    s.sendmsg([b"p"],[(socket.SOL_SOCKET,socket.SCM_RIGHTS,array.array("i",[0,1]))])
    s.recv(1)
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
_START = "command -v python3 >/dev/null 2>&1&&exec python3 -IS -c " + quote(_ATTACH.encode()).decode() + ";echo none"


class NoResident(GateError):
    """The sandbox has no python3 that can run the resident."""

    code = "missing"


class OtherVersion(NoResident):
    """The sandbox's sessions are kept by a resident with which this version of sshgate cannot speak."""


class SessionGone(StartFailed):
    """The session to be resumed does not exist any more."""


class ProtocolError(Exception):
    """The sandbox sent something that the resident never sends."""


class Line:
    """An attached exec. The caller of ``open`` closes it.

    ``send`` queues frames and never waits; ``read`` returns them as they come.
    """

    def __init__(self, process: Process, rest: bytes) -> None:
        self._process = process
        self._reader = FrameReader()
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
        line = await cls.find(sandbox, SOURCE)
        assert line is not None
        return line

    @classmethod
    async def find(cls, sandbox: Sandbox, source: bytes = b"") -> Line | None:
        """Attach to the sandbox's resident. Where there is none, start ``source``; without it return ``None``.

        Raises:
            NoResident: the sandbox has no python3 that can run it.
            OtherVersion: it has one of another version.
            StartFailed: it does not answer; otherwise as ``Sandbox.start``.
        """
        process = await park(sandbox, None)
        try:
            await launch(process, Program(Request(Exec(_START.encode())), shell="/bin/sh"))
            async with asyncio.timeout(HELLO_SECONDS):
                rest = await _hello(process, source)
        except TimeoutError as error:
            await process.close()
            raise StartFailed("what keeps sessions in the sandbox did not answer within 20 s; try again.") from error
        except BaseException:
            await process.close()
            raise
        if rest is None:
            await process.close()
            return None
        return cls(process, rest)

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


class FrameReader:
    """Splits a stream of bytes into frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Iterate over the frames that are complete now; exhaust it before the next call.

        Raises ``ProtocolError`` for a frame that is too long.
        """
        data = self._rest + data
        at = 0
        while len(data) - at >= HEAD.size:
            kind, length = HEAD.unpack_from(data, at)
            if length > LONGEST:
                raise ProtocolError("a frame that is too long")
            end = at + HEAD.size + length
            if end > len(data):
                break
            yield kind, data[at + HEAD.size : end]
            at = end
        self._rest = data[at:]


async def _hello(process: Process, source: bytes) -> bytes | None:
    """Wait for the resident's first line; send its source if that is missing. Returns the output after the line."""
    seen = b""
    length = 0
    while length <= LONGEST:
        if (chunk := await process.read()) is None:
            if isinstance(await process.wait(), Lost) and not seen.endswith(NONE):
                raise StartFailed("the connection to the sandbox broke; try again.")
            break
        length += len(chunk[1])
        if chunk[0] != STDOUT:
            continue
        seen += chunk[1]
        if seen == MISSING:
            if not source:
                return None
            await process.write(source)
            seen = b""
        elif found := _HELLO.search(seen):
            if found[0] != HELLO:
                raise OtherVersion(
                    "the sandbox's sessions were begun by another version of sshgate, and only that can join them."
                )
            return seen[found.end() :]
    if seen.endswith(FULL):
        raise NoResident("the sandbox's sessions have as many clients as they may; close some.")
    if seen.endswith(NO_PLACE):
        raise NoResident("the sandbox's user can write neither to /tmp nor to /dev/shm nor to its home.")
    raise NoResident("the sandbox has no python3 that could keep sessions; install python3 in its image.")


def packed(size: TerminalSize) -> bytes:
    """Return a size as frames have it."""
    return SIZE.pack(size.columns, size.rows, size.pixel_width, size.pixel_height)
