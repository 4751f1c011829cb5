"""Packets under AES-GCM that are not as they were sealed: nothing of them is believed, and only they pay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh
import pytest
from asyncssh.constants import MSG_CHANNEL_DATA
from asyncssh.packet import String, UInt32

from sshgate.config.model import Ssh
from tests.hostile.front_door import FrontDoor, front_door
from tests.hostile.peer import Peer, peer

DATA = String(bytes(1000))


class Meddler(Peer):
    """A peer between which and the server somebody may change what it sends."""

    def send_instead(self, data: bytes) -> None:
        self._transport.write(data)  # type: ignore[union-attr]

    def sealed(self, message: int, *parts: bytes) -> bytes:
        """What a message would be on the wire."""
        sent: list[bytes] = []
        self._send = sent.append  # type: ignore[assignment,method-assign]
        self.say(message, *parts)
        del self._send
        return b"".join(sent)


pytestmark = pytest.mark.parametrize("fast_path", [True, False], ids=["ours", "asyncssh"])


@asynccontextmanager
async def meddling(place: Path, fast_path: bool, cipher: str) -> AsyncIterator[tuple[FrontDoor, Meddler]]:
    """A server, and a peer that has logged in to it and encrypts with ``cipher``."""
    async with (
        front_door(place, ssh=Ssh(fast_path=fast_path)) as door,
        peer(door.port, Meddler, encryption_algs=[cipher]) as client,
    ):
        assert isinstance(client, Meddler)
        await client.log_in(asyncssh.read_private_key(door.key))
        yield door, client


@pytest.mark.parametrize("byte", [4, 500, -1], ids=["first", "middle", "tag"])
async def test_a_changed_byte_ends_the_connection(tmp_path: Path, fast_path: bool, byte: int) -> None:
    async with meddling(tmp_path, fast_path, "aes128-gcm@openssh.com") as (door, client):
        channel, _ = await client.open_channel()
        client.request(channel, b"exec", String(b"cat"))
        packet = bytearray(client.sealed(MSG_CHANNEL_DATA, UInt32(channel), DATA))
        packet[byte] ^= 1
        client.send_instead(bytes(packet))
        assert await client.until_lost() == "MAC verification failed"
        assert (await door.ssh("exit 5")).status == 5


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (bytes(4 + 16), "MAC verification failed"),
        (UInt32(1) + bytes(1 + 16), "MAC verification failed"),
        (UInt32(0xFFFF_FFFF) + bytes(100), "Max packet size exceeded"),
    ],
    ids=["nothing", "one byte", "4 GiB"],
)
async def test_a_length_that_no_packet_has_ends_the_connection(
    tmp_path: Path, fast_path: bool, packet: bytes, reason: str
) -> None:
    async with meddling(tmp_path, fast_path, "aes128-gcm@openssh.com") as (door, client):
        client.send_instead(packet)
        assert await client.until_lost() == reason
        assert (await door.ssh("exit 5")).status == 5


async def test_packets_that_come_byte_by_byte_are_whole(tmp_path: Path, fast_path: bool) -> None:
    async with meddling(tmp_path, fast_path, "aes256-gcm@openssh.com") as (_, client):
        channel, _ = await client.open_channel()
        client.request(channel, b"exec", String(b"cat"))
        for byte in client.sealed(MSG_CHANNEL_DATA, UInt32(channel), String(b"piece by piece")):
            client.send_instead(bytes([byte]))
            # A turn of the loop that both share, so that the server reads it alone.
            await asyncio.sleep(0.001)
        assert (await client.hear(MSG_CHANNEL_DATA))[1] == String(b"piece by piece")
