"""A service in front of replicas, as a cluster has one: new connections go to those that are in, by turns."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml


class Balancer:
    """A TCP proxy on loopback in a thread of its own. Connections that are there survive a change of ``ports``."""

    def __init__(self, ports: Sequence[int], host: str = "127.0.0.1") -> None:
        self.ports = list(ports)
        self._host = host
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0
        self._turn = 0
        self._flows = asyncio.Event()
        self._flows.set()
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))

    @classmethod
    @contextlib.contextmanager
    def before_server(cls, kubeconfig: Path, directory: Path) -> Iterator[tuple[Balancer, dict[str, Any]]]:
        """A proxy before the API server of a kubeconfig, and the settings of sandboxes that lead through it."""
        config = yaml.safe_load(kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        host, _, port = cluster["server"].removeprefix("https://").rstrip("/").partition(":")
        with cls([int(port)], host) as proxy:
            cluster |= {"server": f"https://127.0.0.1:{proxy.port}", "tls-server-name": host}
            (directory / "kubeconfig").write_text(yaml.safe_dump(config))
            yield proxy, {"kubeconfig": str(directory / "kubeconfig"), "api_timeout": "2s"}

    def __enter__(self) -> Balancer:
        self._thread.start()
        assert self._listening.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    def cut(self) -> None:
        """Break all connections, and every new one."""
        self._ports, self.ports = self.ports, []
        self._loop.call_soon_threadsafe(self._break)

    def mend(self) -> None:
        """After ``cut``: as before."""
        self.ports = self._ports

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Nothing that is open or comes goes on while the body runs, as at a server whose process is stopped."""
        self._loop.call_soon_threadsafe(self._flows.clear)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._flows.set)

    def _break(self) -> None:
        for writer in tuple(self._open):
            writer.transport.abort()

    async def _run(self) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._stop.wait()
        server.close()
        self._break()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=5)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._turn += 1
        ports = self.ports
        with contextlib.suppress(OSError):
            if not ports:
                raise ConnectionRefusedError
            there, back = await asyncio.open_connection(self._host, ports[self._turn % len(ports)])
            ends = {writer, back}
            self._open |= ends
            try:
                await asyncio.gather(self._copy(reader, back), self._copy(there, writer))
            finally:
                self._open -= ends
                back.close()
        writer.transport.abort() if not ports else writer.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
            writer.write_eof()
