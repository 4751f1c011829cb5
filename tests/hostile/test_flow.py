"""Peers that do not read, or write what nobody reads: the server's memory stays flat."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncssh
import pytest
from asyncssh.constants import (
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_OPEN_FAILURE,
    MSG_CHANNEL_SUCCESS,
    MSG_GLOBAL_REQUEST,
    MSG_IGNORE,
    MSG_REQUEST_FAILURE,
)
from asyncssh.packet import Boolean, String, UInt32

from sshgate.ssh.channel import INPUT_HIGH
from tests.hostile.front_door import front_door
from tests.hostile.peer import peer
from tests.hostile.polling import until
from tests.hostile.serving import serving

# Floods take their time where other work shares the machine.
pytestmark = pytest.mark.timeout(300)

MIB = 1 << 20
QUESTIONS = 20_000


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    """The event loop that the server runs on."""
    return str(request.param)


async def test_window_of_a_gibibyte_and_a_stalled_network_cost_little(tmp_path: Path, loop: str) -> None:
    async with serving(tmp_path, loop) as server, peer(server.port) as client:
        await client.log_in(asyncssh.read_private_key(tmp_path / "id"))
        channel, _ = await client.open_channel(window=1 << 30)
        before = server.memory()
        client.request(channel, b"exec", String(b"cat /dev/zero"))
        await client.hear(MSG_CHANNEL_DATA)
        client._transport.pause_reading()  # type: ignore[union-attr]
        most = 0
        for _ in range(20):
            await asyncio.sleep(0.1)  # time for the server to buffer, if it would
            most = max(most, server.memory() - before)
        assert most < 6 * MIB
        assert await server.answers()


async def test_window_that_is_never_adjusted_is_used_whole(tmp_path: Path) -> None:
    async with front_door(tmp_path) as door, peer(door.port) as client:
        await client.log_in(asyncssh.read_private_key(door.key))
        channel, _ = await client.open_channel(window=1 << 30)
        client.request(channel, b"exec", String(b"head -c 10000000 /dev/zero"))
        received = 0
        while received < 10_000_000:
            received += len((await client.hear(MSG_CHANNEL_DATA))[1]) - 4


async def _stays(transport: asyncio.WriteTransport) -> bool:
    """Whether what was written stays here: for a second nothing of it was taken."""
    left = transport.get_write_buffer_size()
    while left:
        await asyncio.sleep(1)  # time for the server to read, if it would
        before, left = left, transport.get_write_buffer_size()
        if left == before:
            return True
    return False


async def test_answers_that_nobody_reads_stop_the_questions(tmp_path: Path, loop: str) -> None:
    async with serving(tmp_path, loop) as server, peer(server.port, receive=8192) as client:
        await client.log_in(asyncssh.read_private_key(tmp_path / "id"))
        before = server.memory()
        transport = client._transport
        assert transport is not None
        transport.pause_reading()
        question = (String(b"unheard-of@example.org"), UInt32(0), UInt32(0), UInt32(1))
        # The server's kernel takes some of the answers, and both take what the server has not read: how much is
        # theirs to say.
        rounds = 0
        while not await _stays(transport):
            assert rounds < 10, "the server reads on"
            rounds += 1
            for _ in range(QUESTIONS // 200):
                for _ in range(200):
                    client.say(MSG_CHANNEL_OPEN, *question)
                await asyncio.sleep(0)
            for _ in range(200):
                client.say(MSG_IGNORE, String(bytes(32_000)))
                await asyncio.sleep(0)
        assert server.memory() - before < 8 * MIB
        assert await server.answers()
        transport.resume_reading()
        for _ in range(rounds * QUESTIONS):
            await client.hear(MSG_CHANNEL_OPEN_FAILURE)


@pytest.mark.parametrize("piece", [1, 32768])
async def test_input_that_no_program_reads_is_bounded_by_its_window(tmp_path: Path, loop: str, piece: int) -> None:
    async with serving(tmp_path, loop) as server, peer(server.port) as client:
        await client.log_in(asyncssh.read_private_key(tmp_path / "id"))
        channel, window = await client.open_channel()
        client.request(channel, b"exec", String(b"sleep 100"))
        await client.hear(MSG_CHANNEL_SUCCESS)
        before = server.memory()
        count = min(window // piece, 100_000)
        for number in range(count):
            client.say(MSG_CHANNEL_DATA, UInt32(channel), String(bytes(piece)))
            if number % 1000 == 0:
                await asyncio.sleep(0)
        client.say(MSG_GLOBAL_REQUEST, String(b"are-you-there@example.org"), Boolean(True))
        await until(lambda: client._transport is None or not client._transport.get_write_buffer_size(), 60)
        await client.hear(MSG_REQUEST_FAILURE)
        assert server.memory() - before < (6 if piece == 1 else 14) * MIB
        assert await server.answers()


async def test_data_above_the_window_ends_the_connection(tmp_path: Path) -> None:
    async with front_door(tmp_path) as door, peer(door.port) as client:
        await client.log_in(asyncssh.read_private_key(door.key))
        channel, window = await client.open_channel()
        client.request(channel, b"exec", String(b"sleep 100"), reply=False)
        # What the gateway reads ahead of the program opens the window again.
        for _ in range((window + INPUT_HIGH) // 32768 + 8):
            client.say(MSG_CHANNEL_DATA, UInt32(channel), String(bytes(32768)))
        assert "Window exceeded" in await client.until_lost()
        await until(lambda: door.programs.logins[0].running == 0)


async def test_stalled_client_does_not_hold_up_others(tmp_path: Path) -> None:
    async with front_door(tmp_path) as door, peer(door.port) as client:
        await client.log_in(asyncssh.read_private_key(door.key))
        channel, _ = await client.open_channel(window=1 << 30)
        client.request(channel, b"exec", String(b"cat /dev/zero"))
        await client.hear(MSG_CHANNEL_DATA)
        client._transport.pause_reading()  # type: ignore[union-attr]
        assert (await door.ssh("exit 4", limit=5)).status == 4
        client.abort()
        await until(lambda: door.programs.logins[0].running == 0)


@pytest.mark.parametrize("flood", ["output", "answers"])
async def test_a_key_exchange_that_is_never_finished_costs_little(tmp_path: Path, loop: str, flood: str) -> None:
    """Meanwhile nothing may be sent but messages of the exchange (RFC 4253 section 7.1)."""
    async with serving(tmp_path, loop) as server, peer(server.port) as client:
        await client.log_in(asyncssh.read_private_key(tmp_path / "id"))
        channel, _ = await client.open_channel(window=1 << 30)
        client.request(channel, b"exec", String(b"cat /dev/zero" if flood == "output" else b"cat"))
        await client.hear(MSG_CHANNEL_SUCCESS)
        before = server.memory()
        client.begin_rekey()
        if flood == "answers":
            question = (String(b"unheard-of@example.org"), UInt32(0), UInt32(0), UInt32(1))
            for number in range(100_000):
                client.say(MSG_CHANNEL_OPEN, *question)
                if number % 1000 == 0:
                    await asyncio.sleep(0)
        most = 0
        for _ in range(20):
            await asyncio.sleep(0.1)  # time for the server to buffer, if it would
            most = max(most, server.memory() - before)
        assert most < 8 * MIB
        assert await server.answers()
