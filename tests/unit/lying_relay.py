"""A sandbox whose relay says what a test has it say."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence

from sshgate.forwarding import inside
from sshgate.forwarding.relay import frame
from sshgate.stream.interfaces import STDOUT, Process
from sshgate.stream.terminal import Terminal
from tests.rig.ends import TestProcess, TestSandbox


class LyingRelay(TestProcess):
    """What runs in the sandbox says that it is a relay, and then what the test has it say."""

    def __init__(self) -> None:
        super().__init__()
        self.output.put(b"\x017\x02", STDOUT)
        self.reads = True
        self.writes = 0
        self.stopped = asyncio.Event()
        self._more = asyncio.Event()

    async def write(self, data: bytes) -> None:
        if not self.reads:
            self.stopped.set()
            await asyncio.Event().wait()
        if b"class Relay" in data:
            self.output.put(inside.HELLO, STDOUT)
        self.writes += 1
        await super().write(data)
        self._more.set()

    async def heard(self, words: bytes) -> None:
        """Returns when the gateway has said this."""
        async with asyncio.timeout(20):
            while words not in self.sent:
                self._more.clear()
                await self._more.wait()

    def accepts(self, listener: int, count: int) -> None:
        """Report connections to a listener."""
        for one in range(count):
            numbers = struct.pack(">IH", inside.ACCEPTED_FROM + one, STDOUT)
            self.output.put(frame(inside.ACCEPTED, listener, numbers + b"::1"), STDOUT)


class OfALyingRelay(TestSandbox):
    """A sandbox with nothing else in it."""

    warm = False

    def __init__(self) -> None:
        super().__init__()
        self.relay = LyingRelay()

    async def start(self, argv: Sequence[str], terminal: Terminal | None) -> Process:
        return self.relay

    async def delete(self) -> None:
        self.relay.output.put_eof()
