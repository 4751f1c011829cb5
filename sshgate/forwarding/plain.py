"""Forwarded connections of a sandbox that cannot run the relay: one program (socat, nc or bash) for each.

They are slower to open (an exec each) and limited: no listeners, no error before the first byte except a refusal within
``REFUSAL_SECONDS``, and with bash alone no half-close towards the server.
"""

from __future__ import annotations

import asyncio
import re

from sshgate.forwarding.destinations import Destination, Tcp, Unix
from sshgate.forwarding.relay import ConnectFailed
from sshgate.sandbox.enter import launch, park
from sshgate.sandbox.interfaces import Sandbox
from sshgate.sandbox.launcher import Program, quote
from sshgate.sandbox.side_execs import PLAIN_CONNECTIONS, until_end
from sshgate.stream.interfaces import STDOUT, Exec, Exited, Process, Request
from sshgate.stream.tasks import Event

MISSING = "the sandbox has none of python3, socat and nc to connect with; install one of them in its image"
NO_TOOL = 97
# The program of a refused connection ends within this time. A server that waits for its client sends nothing by then.
REFUSAL_SECONDS = 0.25

# Without -t, socat would end half a second after the first of the two directions.
_TCP = (
    "h={host};p={port};s=$h;case $h in *:*)s=[$h];;esac;"
    'if command -v socat >/dev/null 2>&1;then exec socat -t 86400 - "TCP:$s:$p";'
    'elif command -v nc >/dev/null 2>&1;then exec nc "$h" "$p";'
    "elif command -v bash >/dev/null 2>&1;then "
    'exec bash -c \'exec 3<>/dev/tcp/$0/$1||exit 1;(cat <&3;kill $$)& cat >&3;wait\' "$h" "$p";'
    "else exit 97;fi"
)
# For socat `,` begins options, and `!!` a second address, which may run a program.
_PATH = re.compile(r"[\w/.@%+=~-]+")
_UNIX = 'u={path};if command -v socat >/dev/null 2>&1;then exec socat -t 86400 - "UNIX-CONNECT:$u";else exit 97;fi'


class PlainStream:
    """One connection through one program; a ``stream.interfaces.Stream``."""

    def __init__(self, sandbox: Sandbox, process: Process) -> None:
        self._sandbox = sandbox
        self._process = process
        self._first: bytes | None = None
        self._ended = Event()
        self._closing: asyncio.Task[None] | None = None

    async def begin(self, program: Program) -> None:
        """Start the program. Returns at its first output, or when it has not ended within ``REFUSAL_SECONDS``.

        Raises ``ConnectFailed`` if it ends first.
        """
        await launch(self._process, program)
        try:
            async with asyncio.timeout(REFUSAL_SECONDS):
                chunk = await self._process.read()
        except TimeoutError:
            return  # a cancelled read of a process loses no output
        if chunk is not None and chunk[0] == STDOUT:
            self._first = chunk[1]
            return
        missing = False
        if await until_end(self._process):
            missing = await self._process.wait() == Exited(NO_TOOL)
            self._ended.set()
        raise ConnectFailed(MISSING if missing else "connection failed")

    async def read(self) -> bytes | None:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        while not self._ended.is_set() and (chunk := await self._process.read()) is not None:
            if chunk[0] == STDOUT:
                return chunk[1]
        # The program ends when both directions have, so nothing that is written from now on is read.
        self._ended.set()
        return None

    async def write(self, data: bytes) -> None:
        await self._process.write(data)

    async def write_eof(self) -> None:
        await self._process.write_eof()

    async def wait_closed(self) -> None:
        await self._ended.wait()

    def close(self) -> None:
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())

    async def closed(self) -> None:
        """Close it, and return when its program has been ended."""
        self.close()
        assert self._closing is not None
        await self._closing

    async def _close(self) -> None:
        over = self._ended.is_set()
        self._ended.set()
        try:
            await self._process.close()
            if not over and self._process.pid is not None:
                await self._sandbox.aside.hang_up(self._process.pid)
        finally:
            self._sandbox.aside.plain_connections -= 1


async def connect(sandbox: Sandbox, destination: Destination, own: tuple[str, ...] = ()) -> PlainStream:
    """Connect with a program in the sandbox. Cancelling ends it.

    Args:
        own: the sandbox's own addresses, where the destination is the sandbox itself; the first is used.

    Raises:
        ConnectFailed: refused, no such program, or a path that cannot be passed to one safely.
        GateError: as ``Sandbox.start``.
    """
    if isinstance(destination, Unix) and not _PATH.fullmatch(destination.path):
        raise ConnectFailed("without python3 in the sandbox the path of a unix socket may have no special characters")
    aside = sandbox.aside
    if aside.plain_connections >= PLAIN_CONNECTIONS:
        raise ConnectFailed(
            f"without python3 in the sandbox it has {PLAIN_CONNECTIONS} forwarded connections at most; install it there"
        )
    aside.plain_connections += 1
    try:
        stream = PlainStream(sandbox, await park(sandbox, None))
    except BaseException:
        aside.plain_connections -= 1
        raise
    try:
        await stream.begin(Program(Request(Exec(script(destination, own))), shell="/bin/sh"))
    except BaseException:
        stream.close()
        raise
    return stream


def script(destination: Destination, own: tuple[str, ...] = ()) -> bytes:
    """The shell code that connects, with the first of the programs that the sandbox has."""
    if isinstance(destination, Tcp):
        hosts = own or (destination.host,)
        return _TCP.format(host=quote(hosts[0].encode()).decode(), port=destination.port).encode()
    return _UNIX.format(path=quote(destination.path.encode("utf-8", "surrogateescape")).decode()).encode(
        "utf-8", "surrogateescape"
    )
