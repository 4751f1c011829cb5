"""A drain in which a part is broken: it is seen, and the sessions that run are still waited for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import structlog

from sshgate.config.model import Access, Address, Config, SandboxPlace, Ssh
from sshgate.server import app
from sshgate.server.core import Core
from sshgate.server.frontends import Frontends


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
