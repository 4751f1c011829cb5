"""The misbehaving peer can also behave: what it hears is what the server says."""

from __future__ import annotations

from pathlib import Path

import asyncssh
from asyncssh.constants import MSG_CHANNEL_DATA
from asyncssh.packet import String

from tests.hostile.front_door import front_door
from tests.hostile.peer import peer


async def test_peer_logs_in_and_runs_a_command(tmp_path: Path) -> None:
    async with front_door(tmp_path) as door, peer(door.port) as client:
        await client.log_in(asyncssh.read_private_key(door.key))
        channel, window = await client.open_channel()
        assert window == 1 << 20
        client.request(channel, b"exec", String(b"echo hi"))
        _, data = await client.hear(MSG_CHANNEL_DATA)
        assert data == String(b"hi\n")
