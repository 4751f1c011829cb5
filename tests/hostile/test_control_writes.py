"""A client that does not read: what the gateway itself has to say waits for it only so long, and its clocks go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from sshgate.access.authorized_keys import Keyring
from sshgate.config.model import Profile, ProfileLimits, SandboxPlace
from sshgate.lifecycle import clocks
from sshgate.providers.local.provider import LocalProvider
from sshgate.session import notices
from sshgate.session import timers as timekeeping
from sshgate.session.gateway import Gateway
from sshgate.ssh.server import SshServer
from tests.hostile.front_door import FrontDoor, front_door

pytestmark = pytest.mark.local


@asynccontextmanager
async def gateway(place: Path, limits: ProfileLimits) -> AsyncIterator[tuple[FrontDoor, LocalProvider]]:
    """A front door with the core and local sandboxes behind it."""
    provider = LocalProvider(SandboxPlace(provider="local"))
    async with front_door(place) as door:
        await provider.open()
        core = Gateway(provider, {"default": Profile(limits=limits)}, door.admission)
        keyring = Keyring(door.config.access.authorized_keys, None)
        server = SshServer(door.config, keyring, door.admission.ssh, core)
        port = (await server.listen())[0].port
        try:
            yield replace(door, port=port), provider
        finally:
            await server.close()
            await provider.close()


@pytest.mark.parametrize(
    ("limits", "program"),
    [
        (ProfileLimits(max_lifetime=3.0), ("yes",)),
        # The shell itself writes more than the window, and is idle from then on.
        (ProfileLimits(idle=3.0, detached=1.0), ()),
    ],
    ids=["lifetime", "idle"],
)
async def test_a_client_that_does_not_read_is_ended_by_the_clock(
    tmp_path: Path, local: None, monkeypatch: pytest.MonkeyPatch, limits: ProfileLimits, program: tuple[str, ...]
) -> None:
    monkeypatch.setattr(clocks, "WARNINGS", (2.0,))
    monkeypatch.setattr(notices, "WRITE_SECONDS", 0.2)
    monkeypatch.setattr(timekeeping, "LOOK_SECONDS", 0.5)
    async with gateway(tmp_path, limits) as (door, provider):
        client = await door.start(*program, options=("-tt",))
        assert client.stdout is not None
        assert client.stdin is not None
        if not program:
            client.stdin.write(b"printf %9000000s\n")
        async with asyncio.timeout(20):
            while not provider._sandboxes:  # noqa: ASYNC110  (nothing tells of it)
                await asyncio.sleep(0.05)
            # Its output is never read: pipe, window and buffers fill.
            client.stdout._transport.pause_reading()  # type: ignore[attr-defined]
            while provider._sandboxes:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            client.stdout._transport.resume_reading()  # type: ignore[attr-defined]
            assert b"this session ended: it" in (await client.communicate())[1]
