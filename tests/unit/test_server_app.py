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


class BrokenDoor:
    """A front door with a defect in its drain."""

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


def core_and_doors(place: Path) -> tuple[Core, Frontends]:
    config = Config(
        ssh=Ssh(listen=Address("127.0.0.1", 0), host_keys=place / "host", drain=30.0),
        access=Access(authorized_keys=place / "users"),
        sandbox=SandboxPlace(provider="local"),
    )
    core = Core(config)
    return core, Frontends(config, core)


@pytest.mark.parametrize("whole", [False, True])
async def test_a_broken_drain_is_logged_and_sessions_are_waited_for(tmp_path: Path, whole: bool) -> None:
    core, doors = core_and_doors(tmp_path)
    doors._all = [BrokenDoor()] if whole else [BrokenDoor(), doors.ssh]
    core.gateway.sessions = 1
    with structlog.testing.capture_logs() as lines:
        draining = asyncio.create_task(app._drain(core, doors, asyncio.Queue()))
        await asyncio.sleep(0.3)
        assert not draining.done(), "a session runs"
        core.gateway.sessions = 0
        async with asyncio.timeout(5):
            await draining
    assert [line["step"] for line in lines if line["event"] == "drain.broken"] == ["drain"]


async def test_a_second_signal_does_not_wait_for_a_broken_drain(tmp_path: Path) -> None:
    core, doors = core_and_doors(tmp_path)
    doors._all = [BrokenDoor()]
    core.gateway.sessions = 1
    stop: asyncio.Queue[int] = asyncio.Queue()
    stop.put_nowait(15)
    async with asyncio.timeout(5):
        await app._drain(core, doors, stop)


async def test_a_door_that_cannot_close_leaves_none_of_the_others_open(tmp_path: Path) -> None:
    _core, doors = core_and_doors(tmp_path)
    closed: list[Any] = []

    class SlowDoor(BrokenDoor):
        async def close(self) -> None:
            await asyncio.sleep(0.05)
            closed.append(self)

    doors._all = [BrokenDoor(), SlowDoor()]
    with pytest.raises(KeyError):
        await doors.close()
    assert len(closed) == 1
