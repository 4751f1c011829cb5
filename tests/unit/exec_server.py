"""An exec websocket whose other end follows a script."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from sshgate.providers.kubernetes.api.websocket import V5
from sshgate.providers.kubernetes.exec.process import ExecProcess
from tests.unit.apiserver import connected, serve

SUCCESS = b'\x03{"status":"Success"}'

Script = Callable[[web.WebSocketResponse], Awaitable[None]]


class FakePodContext:
    """The sandbox of a process: nothing is signalled, and ``dead`` says whether its process is gone."""

    def __init__(self, dead: bool) -> None:
        self.dead = dead
        self.asked: list[int] = []
        self.taken_by: list[int] = []
        self.acknowledged = asyncio.Event()

    def signal(self, pid: int, name: str, foreground: bool) -> None:
        raise AssertionError("no signal was asked for")

    async def acknowledge_output(self, pid: int) -> None:
        self.taken_by.append(pid)
        self.acknowledged.set()

    async def end_reason(self) -> str | None:
        return None

    async def kill_reason(self) -> str | None:
        return None

    async def process_gone(self, pid: int) -> bool:
        self.asked.append(pid)
        return self.dead

    def ended(self, process: ExecProcess) -> None:
        assert process.outcome is not None


@asynccontextmanager
async def process(
    tmp_path: Path,
    script: Script,
    subprotocol: str = V5,
    terminal: bool = False,
    dead: bool = True,
    home: FakePodContext | None = None,
) -> AsyncIterator[ExecProcess]:
    """A process whose other end follows ``script``."""

    async def answer(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=(subprotocol,), max_msg_size=0, autoping=False)
        await socket.prepare(request)
        await socket.send_bytes(b"\x01")
        await script(socket)
        await socket.close()
        return socket

    async with serve(answer, tmp_path) as served, connected(served) as api:
        socket = await api.websocket(api.path("pods", "x", "exec"), "command=true")
        made = ExecProcess(socket, terminal, home or FakePodContext(dead))
        try:
            async with asyncio.timeout(20):
                yield made
        finally:
            await made.close()
