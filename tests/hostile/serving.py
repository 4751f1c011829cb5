"""A front door in a process of its own, whose memory can be measured."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import uvloop

from tests.hostile.front_door import front_door


@dataclass
class Serving:
    """The running process."""

    process: asyncio.subprocess.Process
    port: int
    place: Path

    def memory(self) -> int:
        """Resident bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))

    async def answers(self) -> bool:
        """Whether somebody else can still log in."""
        client = await asyncio.create_subprocess_exec(
            "ssh", "-F", "none", "-p", str(self.port), "-i", self.place / "id", "-o", "IdentitiesOnly=yes",
            "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
            "-o", "LogLevel=ERROR", "user@127.0.0.1", "exit 4", stdin=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        async with asyncio.timeout(10):
            return await client.wait() == 4


@contextlib.asynccontextmanager
async def serving(place: Path, loop: str = "asyncio") -> AsyncIterator[Serving]:
    """Start it on an event loop of this kind. It ends with the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.hostile.serving",
        place,
        loop,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            while not (line := await process.stdout.readline()).startswith(b"port "):
                assert line, "the server has ended"
        yield Serving(process, int(line.split()[1]), place)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        async with asyncio.timeout(15):
            await process.communicate()


async def _serve(place: Path) -> None:
    async with front_door(place) as door:
        print(f"port {door.port}", flush=True)
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        await reader.read()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if sys.argv[2] == "uvloop" else None) as runner:
        runner.run(_serve(Path(sys.argv[1])))
