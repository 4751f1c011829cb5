"""Peers that have not logged in: what they may cost, and that nobody else notices."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import asyncssh
import pytest
from asyncssh.constants import (
    MSG_CHANNEL_OPEN,
    MSG_DEBUG,
    MSG_GLOBAL_REQUEST,
    MSG_IGNORE,
    MSG_KEXINIT,
    MSG_UNIMPLEMENTED,
    MSG_USERAUTH_FAILURE,
    MSG_USERAUTH_SUCCESS,
)
from asyncssh.packet import Boolean, String, UInt32

from sshgate.config.model import Limits, Ssh
from sshgate.ssh._asyncssh.incoming import BYTES_BEFORE_LOGIN, PACKETS_BEFORE_LOGIN
from sshgate.telemetry.codes import Code
from tests.hostile.front_door import front_door, make_key
from tests.hostile.peer import peer
from tests.hostile.polling import until
from tests.hostile.serving import serving


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    """The event loop that the server runs on."""
    return str(request.param)


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100_000, b"SSH-1.5-old\r\n", b"SSH-2.0-\xff\xfe\r\n", b"x" * 8192,
     b"SSH-2.0-fine\r\n" + b"\xff" * 64, b"SSH-2.0-fine\r\n" + b"\0" * 64],
)  # fmt: skip
async def test_garbage_ends_its_own_connection_only(
    tmp_path: Path, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with front_door(tmp_path) as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(garbage)
        async with asyncio.timeout(5):
            try:
                await reader.read()
            except ConnectionResetError:
                pass
        writer.close()
        await until(lambda: door.admission.connections == 0)
        assert (await door.ssh("exit 4")).status == 4
    # Events have a rate limit; a traceback for each such connection would have none.
    assert not [record for record in caplog.records if record.name == "asyncio"]


async def test_a_hundred_silent_connections_keep_nobody_out_and_go_after_the_grace_time(tmp_path: Path) -> None:
    async with front_door(tmp_path, ssh=Ssh(login_grace=2.0), limits=Limits(unauthenticated=10)) as door:
        sockets = [socket.create_connection(("127.0.0.1", door.port)) for _ in range(100)]
        await until(lambda: door.admission.unauthenticated == 10)
        assert (await door.ssh("exit 4")).status == 4
        await until(lambda: door.admission.unauthenticated == 0)
        for one in sockets:
            one.close()


async def test_those_who_are_in_do_not_count_as_unauthenticated(tmp_path: Path) -> None:
    async with front_door(tmp_path, limits=Limits(unauthenticated=1)) as door:
        client = await door.start("cat")
        await until(lambda: door.programs.logins)
        assert (await door.ssh("exit 4")).status == 4
        assert (await client.communicate(b"x"))[0] == b"x"


@pytest.mark.parametrize("flood", ["ignored messages", "authentication requests", "one endless packet"])
async def test_flood_before_login_costs_no_memory(tmp_path: Path, loop: str, flood: str) -> None:
    async with serving(tmp_path, loop) as server, peer(server.port) as client:
        before = server.memory()
        await client.begin_login()
        for _ in range(400):
            if client.lost.is_set():
                break
            if flood == "ignored messages":
                client.say(MSG_IGNORE, String(bytes(32_000)))
            elif flood == "authentication requests":
                client.ask_login(b"user", b"publickey", Boolean(False), String(b"ssh-ed25519"), String(bytes(30_000)))
            else:
                client._send(bytes(32_000))
            await asyncio.sleep(0)
        assert server.memory() - before < 8 << 20
        assert await server.answers()


async def test_change_of_the_user_name_ends_the_connection(tmp_path: Path) -> None:
    async with front_door(tmp_path) as door, peer(door.port) as client:
        key = asyncssh.read_private_key(door.key)
        make_key(tmp_path / "other")
        (tmp_path / "users" / "other").write_text((tmp_path / "other.pub").read_text())
        await client.begin_login()
        client.ask_login(b"user", b"publickey", Boolean(False), String(b"ssh-ed25519"), String(key.public_data))
        assert (await client.hear())[0] == 60
        client.ask_login(b"other", b"publickey", *client.signed(key, b"other"))
        assert "Change of user name" in await client.until_lost()
        assert not door.programs.logins


async def test_question_for_a_key_is_no_login(tmp_path: Path) -> None:
    async with front_door(tmp_path) as door, peer(door.port) as client:
        key = asyncssh.read_private_key(door.key)
        wrong = asyncssh.generate_private_key("ssh-ed25519")
        await client.begin_login()
        for _ in range(3):
            client.ask_login(b"user", b"publickey", Boolean(False), String(b"ssh-ed25519"), String(key.public_data))
            assert (await client.hear())[0] == 60
        client.ask_login(b"user", b"publickey", *client.signed(wrong, b"user"))
        assert (await client.hear())[0] == MSG_USERAUTH_FAILURE
        client.ask_login(b"user", b"publickey", *client.signed(key, b"user")[:-1], String(b""))
        await client.hear(MSG_USERAUTH_FAILURE)
        assert not door.programs.logins


@pytest.mark.parametrize("method", [b"none", b"password", b"keyboard-interactive", b"hostbased", b"publickey", b"?"])
async def test_attempts_of_every_kind_are_counted(tmp_path: Path, method: bytes) -> None:
    more = {
        b"password": (Boolean(False), String(b"secret")),
        b"keyboard-interactive": (String(b""), String(b"")),
        b"publickey": (Boolean(False), String(b"ssh-ed25519"), String(b"nonsense")),
    }.get(method, ())
    async with front_door(tmp_path, limits=Limits(auth_attempts=4)) as door, peer(door.port) as client:
        await client.begin_login()
        for _ in range(5):
            client.ask_login(b"user", method, *more)
            await asyncio.sleep(0)
            if method != b"publickey":
                continue
            await asyncio.wait({asyncio.ensure_future(client.lost.wait())}, timeout=0.05)
        assert await client.until_lost() == "Too many authentication failures"


@pytest.mark.parametrize("message", [MSG_CHANNEL_OPEN, MSG_GLOBAL_REQUEST])
async def test_nothing_is_served_before_login(tmp_path: Path, message: int) -> None:
    async with front_door(tmp_path) as door, peer(door.port) as client:
        await client.begin_login()
        if message == MSG_CHANNEL_OPEN:
            client.say(message, String(b"session"), UInt32(0), UInt32(1 << 20), UInt32(32768))
        else:
            client.say(message, String(b"tcpip-forward"), Boolean(True), String(b""), UInt32(0))
        assert "before authentication" in await client.until_lost()
        assert not door.programs.logins


def plain(message: bytes) -> bytes:
    """A packet without keys (RFC 4253 section 6)."""
    padding = 4 + -(5 + len(message) + 4) % 8
    return (1 + len(message) + padding).to_bytes(4, "big") + bytes([padding]) + message + bytes(padding)


@pytest.mark.parametrize(
    "message",
    [bytes([MSG_IGNORE]) + String(b""), bytes([MSG_DEBUG]) + bytes(9), bytes([MSG_UNIMPLEMENTED]) + UInt32(0)],
)
async def test_nobody_has_anything_to_say_before_the_key_exchange(tmp_path: Path, message: bytes) -> None:
    async with front_door(tmp_path) as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(b"SSH-2.0-x\r\n" + plain(message))
        async with asyncio.timeout(5):
            assert b"Unexpected message before key exchange" in await reader.read()
        writer.close()
        assert (await door.ssh("exit 4")).status == 4


async def test_what_is_sent_before_login_is_bounded_in_packets(tmp_path: Path) -> None:
    async with front_door(tmp_path) as door, peer(door.port) as client:
        await client.begin_login()
        for _ in range(PACKETS_BEFORE_LOGIN):
            client.say(MSG_IGNORE, String(b"x"))
        assert await client.until_lost() == "Too much sent before authentication"
        await until(lambda: "Too much sent before authentication" in door.heard(Code.CONNECTION_UNAUTHENTICATED))


async def test_what_is_sent_before_login_is_bounded_in_bytes(tmp_path: Path) -> None:
    async with front_door(tmp_path) as door, peer(door.port) as client:
        await client.begin_login()
        for _ in range(BYTES_BEFORE_LOGIN // 60_000 + 1):
            client.say(MSG_IGNORE, String(bytes(60_000)))
        assert await client.until_lost() == "Too much sent before authentication"


async def test_keys_are_exchanged_once_before_login(tmp_path: Path) -> None:
    async with front_door(tmp_path) as door, peer(door.port) as client:
        await client.begin_login()
        client.say(MSG_KEXINIT, bytes(16) + (String(b"x") * 10) + Boolean(False) + UInt32(0))
        assert await client.until_lost() == "Unexpected key exchange before authentication"


async def test_who_says_much_before_login_gets_in_all_the_same(tmp_path: Path) -> None:
    """As clients do that hide the length of what they say, and those with many keys and large certificates."""
    async with front_door(tmp_path) as door, peer(door.port) as client:
        key = asyncssh.read_private_key(door.key)
        await client.begin_login()
        for _ in range(5):
            for _ in range(10):
                client.say(MSG_IGNORE, String(b"x" * 100))
                client.say(MSG_DEBUG, Boolean(False), String(b"debug"), String(b""))
            question = (Boolean(False), String(b"ssh-ed25519"), String(bytes(60_000)))
            client.ask_login(b"user", b"publickey", *question)
            await client.hear(MSG_USERAUTH_FAILURE)
        client.ask_login(b"user", b"publickey", *client.signed(key, b"user"))
        assert (await client.hear(MSG_USERAUTH_SUCCESS, MSG_USERAUTH_FAILURE))[0] == MSG_USERAUTH_SUCCESS
        # After login there is no total.
        for _ in range(2 * PACKETS_BEFORE_LOGIN):
            client.say(MSG_IGNORE, String(b"x" * 10_000))
        await client.open_channel()
