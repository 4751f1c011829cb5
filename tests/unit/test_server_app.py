"""Drains with broken parts, which are seen and still wait for sessions; signals; workers that cannot be started."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import structlog

from sshgate.config.model import Access, Address, Config, SandboxPlace, Ssh
from sshgate.server import app
from sshgate.server.core import Core
from sshgate.server.frontends import Frontends
from sshgate.server.workers import CUT, DRAIN, Parent


class BrokenFrontend:
    """A front end with a defect in its drain."""

    sessions = 0

    async def listen(self) -> list[Address]:
        return []

    async def reconfigure(self, config: Config) -> None:
        pass

    def stop_accepting(self) -> None:
        pass

    async def drain(self, seconds: float) -> None:
        raise KeyError("defect")

    async def close(self) -> None:
        raise KeyError("defect")


def core_and_frontends(place: Path) -> tuple[Core, Frontends]:
    config = Config(
        ssh=Ssh(listen=Address("127.0.0.1", 0), host_keys=place / "host", drain=30.0),
        access=Access(authorized_keys=place / "users"),
        sandbox=SandboxPlace(provider="local"),
    )
    core = Core(config)
    return core, Frontends(config, core)


@pytest.mark.parametrize("whole", [False, True])
async def test_a_broken_drain_is_logged_and_sessions_are_waited_for(tmp_path: Path, whole: bool) -> None:
    core, frontends = core_and_frontends(tmp_path)
    frontends._all = [BrokenFrontend()] if whole else [BrokenFrontend(), frontends.ssh]
    core.gateway.sessions = 1
    with structlog.testing.capture_logs() as lines:
        draining = asyncio.create_task(app._drain(core, frontends, asyncio.Queue()))
        await asyncio.sleep(0.3)
        assert not draining.done(), "a session runs"
        core.gateway.sessions = 0
        async with asyncio.timeout(5):
            await draining
    assert [line["step"] for line in lines if line["event"] == "drain.broken"] == ["drain"]


async def test_a_second_signal_does_not_wait_for_a_broken_drain(tmp_path: Path) -> None:
    core, frontends = core_and_frontends(tmp_path)
    frontends._all = [BrokenFrontend()]
    core.gateway.sessions = 1
    stop: asyncio.Queue[int] = asyncio.Queue()
    stop.put_nowait(15)
    async with asyncio.timeout(5):
        await app._drain(core, frontends, stop)


async def test_a_front_end_that_cannot_close_leaves_none_of_the_others_open(tmp_path: Path) -> None:
    _core, frontends = core_and_frontends(tmp_path)
    closed: list[Any] = []

    class SlowFrontend(BrokenFrontend):
        async def close(self) -> None:
            await asyncio.sleep(0.05)
            closed.append(self)

    frontends._all = [BrokenFrontend(), SlowFrontend()]
    with pytest.raises(KeyError):
        await frontends.close()
    assert len(closed) == 1


@pytest.mark.parametrize("by_parent", [False, True])
async def test_a_worker_is_cut_by_its_parent_only(by_parent: bool) -> None:
    """A service manager ends all processes at once, and the kernel ends a worker whose parent dies."""
    stop = app._stop_signals(by_parent)
    came: list[int] = []
    try:
        for number in (signal.SIGTERM, signal.SIGTERM, *([DRAIN, signal.SIGTERM, CUT] if by_parent else [])):
            os.kill(os.getpid(), number)
            await asyncio.sleep(0.05)
        while not stop.empty():
            came.append(stop.get_nowait())
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, DRAIN, CUT):
            asyncio.get_running_loop().remove_signal_handler(number)
    assert came == [signal.SIGTERM, CUT if by_parent else signal.SIGTERM]


def test_a_worker_that_cannot_be_forked_is_tried_again_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fork)
    config = Config(
        ssh=Ssh(listen=Address("127.0.0.1", 0), host_keys=tmp_path / "host"),
        access=Access(authorized_keys=tmp_path / "users"),
        workers=2,
    )
    parent = Parent(config, None, lambda *_: 0)
    parent._began = True
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with structlog.testing.capture_logs() as lines:
        for _ in range(2):
            parent._start(1)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    assert [(line["event"], line["seconds"]) for line in lines] == [
        ("worker.unstarted", 0.25),
        ("worker.unstarted", 0.5),
    ]
    assert parent._workers[1].due > time.monotonic()
    assert (parent._workers[1].pid, parent._workers[1].restarts, parent._status) == (None, -1, 0)
    parent._boxes.close()
    for one in parent._reserved:
        one.close()
