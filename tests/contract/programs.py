"""Running programs in a sandbox, for the suites of this folder."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from sshgate.sandbox.enter import launch, park
from sshgate.sandbox.interfaces import Sandbox
from sshgate.sandbox.launcher import Program
from sshgate.stream.interfaces import STDERR, STDOUT, Exec, Outcome, Process, Request
from sshgate.stream.terminal import Terminal


class Begun:
    """A running program whose output begins with what its start has read already."""

    def __init__(self, process: Process, said: bytes) -> None:
        self.process = process
        self.said = said

    async def read(self) -> tuple[int, bytes] | None:
        if self.said:
            said, self.said = self.said, b""
            return STDOUT, said
        return await self.process.read()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.process, name)

    def __repr__(self) -> str:
        return repr(self.process)


async def begin(
    sandbox: Sandbox, command: bytes, terminal: Terminal | None = None, no_input: bool = False, **environment: bytes
) -> Begun:
    """A running program; the caller reads and closes it."""
    process = await park(sandbox, terminal)
    return Begun(process, await launch(process, Program(Request(Exec(command), terminal, environment)), no_input))


async def everything(process: Process | Begun) -> tuple[bytes, bytes, Outcome]:
    """Stdout, stderr and the end of a process, which is closed then."""
    said = {STDOUT: bytearray(), STDERR: bytearray()}
    async with asyncio.timeout(60):
        while (chunk := await process.read()) is not None:
            said[chunk[0]] += chunk[1]
        outcome = await process.wait()
    await process.close()
    return bytes(said[STDOUT]), bytes(said[STDERR]), outcome


async def run(
    sandbox: Sandbox,
    command: bytes,
    stdin: bytes = b"",
    terminal: Terminal | None = None,
    environment: Mapping[str, bytes] | None = None,
) -> tuple[bytes, bytes, Outcome]:
    """A program from its start to its end, with all its input given."""
    process = await begin(sandbox, command, terminal, False, **(environment or {}))
    feeding = asyncio.create_task(_feed(process, stdin))
    result = await everything(process)
    await feeding
    return result


async def _feed(process: Begun, stdin: bytes) -> None:
    for start in range(0, len(stdin), 100_000):
        await process.write(stdin[start : start + 100_000])
    await process.write_eof()


async def until_output(process: Begun, wanted: bytes) -> bytes:
    """Read until ``wanted`` was said."""
    seen = b""
    async with asyncio.timeout(10):
        while wanted not in seen:
            chunk = await process.read()
            assert chunk is not None, seen
            seen += chunk[1]
    return seen
