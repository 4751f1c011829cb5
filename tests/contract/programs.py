"""Running programs in a sandbox, for the suites of this folder."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sshgate.config.model import Profile
from sshgate.providers.local.provider import LocalProvider
from sshgate.sandbox.enter import launch, park
from sshgate.sandbox.interfaces import Order, Sandbox
from sshgate.sandbox.launcher import Program
from sshgate.stream.interfaces import STDERR, STDOUT, Exec, Outcome, Process, Request
from sshgate.stream.terminal import Terminal

# A gateway that runs a program in a sandbox and prints what it prints.
GATEWAY = """
import asyncio, sys
from sshgate.config.model import Log, Profile, SandboxPlace
from sshgate.providers.local.provider import LocalProvider
from sshgate.sandbox.interfaces import Order
from sshgate.telemetry import log

async def main():
    log.configure(Log())
    provider = LocalProvider(SandboxPlace(provider="local"))
    await provider.open()
    sandbox = await provider.create(Order(Profile(), "alice", "own"), print)
    process = await sandbox.start(sys.argv[1:], None)
    while (chunk := await process.read()) is not None:
        print(chunk[1].decode(), end="", flush=True)
    await provider.close()

asyncio.run(main())
"""


async def make(provider: LocalProvider, profile: Profile | None = None) -> Sandbox:
    """Another sandbox; the provider ends it."""
    return await provider.create(Order(profile or Profile(), "alice", secrets.token_hex(5)), lambda text: None)


async def gateway(*words: str, before: tuple[str, ...] = ()) -> asyncio.subprocess.Process:
    """A gateway in a process of its own, whose sandbox runs ``words``; ``before`` starts it."""
    command = [*before, sys.executable, "-c", GATEWAY, *words]
    return await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2])


class Begun:
    """A running program whose output begins with what its start has read already."""

    def __init__(self, process: Process, output: bytes) -> None:
        self.process = process
        self.output = output

    async def read(self) -> tuple[int, bytes] | None:
        if self.output:
            output, self.output = self.output, b""
            return STDOUT, output
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
    output = {STDOUT: bytearray(), STDERR: bytearray()}
    async with asyncio.timeout(60):
        while (chunk := await process.read()) is not None:
            output[chunk[0]] += chunk[1]
        outcome = await process.wait()
    await process.close()
    return bytes(output[STDOUT]), bytes(output[STDERR]), outcome


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
