"""What the server offers, and how it names itself."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest
from asyncssh.constants import MSG_CHANNEL_DATA, MSG_EXT_INFO
from asyncssh.packet import SSHPacket, String, UInt32

from sshgate import __version__
from sshgate.config.model import Access, Ssh
from sshgate.ssh import hostkeys
from sshgate.ssh._asyncssh.connection import MSG_PING, MSG_PONG
from tests.hostile.front_door import FrontDoor, front_door
from tests.hostile.peer import peer
from tests.hostile.polling import until

KEXINIT = 20


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[FrontDoor]:
    async with front_door(tmp_path) as opened:
        yield opened


async def offer(port: int) -> tuple[bytes, list[list[str]]]:
    """The server's version line and the name lists of its first message, read from the wire."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        version = (await reader.readline()).rstrip()
        writer.write(b"SSH-2.0-test\r\n")
        length = int.from_bytes(await reader.readexactly(4), "big")
        body = await reader.readexactly(length)
    finally:
        writer.close()
        await writer.wait_closed()
    packet = SSHPacket(body[1 : length - body[0]])
    assert packet.get_byte() == KEXINIT
    packet.get_bytes(16)
    return version, [[name.decode() for name in packet.get_namelist()] for _ in range(10)]


async def test_offer_is_pinned(door: FrontDoor) -> None:
    version, lists = await offer(door.port)
    ciphers = ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes256-ctr"]
    macs = ["hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256"]
    numbers = ".".join(number.zfill(2) for number in __version__.split("."))
    assert version == f"SSH-2.0-OpenSSH_sshgate_{numbers}".encode()
    # npm's ssh2, by which it knows OpenSSH; and what reads a release of OpenSSH out of it.
    software = version.decode().removeprefix("SSH-2.0-")
    assert re.search(r"^OpenSSH_(?:(?![0-4])\d)|(?:\d{2,})", software)
    assert not re.search(r"OpenSSH_\D{0,12}_?[1-9]", software)
    assert lists == [
        ["curve25519-sha256", "mlkem768x25519-sha256", "curve25519-sha256@libssh.org", "ext-info-s",
         "kex-strict-s-v00@openssh.com"],
        ["ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256"],
        ciphers, ciphers, macs, macs, ["none"], ["none"], [], [],
    ]  # fmt: skip


@pytest.mark.parametrize("offered", [False, True])
@pytest.mark.parametrize("kex", ["ecdh-sha2-nistp256", "ecdh-sha2-nistp384"])
async def test_older_key_exchanges_are_offered_where_they_are_set(tmp_path: Path, kex: str, offered: bool) -> None:
    async with front_door(tmp_path, ssh=Ssh(older_key_exchanges=offered)) as door:
        result = await door.ssh("echo in", options=["-o", f"KexAlgorithms={kex}"])
        assert (result.out, result.status) == ((b"in\n", 0) if offered else (b"", 255))
        new = await door.ssh("true", options=["-v"])
        assert b"kex: algorithm: curve25519-sha256" in new.err or b"kex: algorithm: mlkem768x25519-sha256" in new.err


async def test_every_warning_of_ssh_audit_is_written_down_with_its_reason(door: FrontDoor) -> None:
    auditor = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ssh_audit", "--json", "--skip-rate-test", f"127.0.0.1:{door.port}",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(auditor.communicate(), 60)
    report = json.loads(out)
    entries = [entry for part in ("kex", "key", "enc", "mac") for entry in report[part]]
    assert entries
    assert [entry for entry in entries if "fail" in entry["notes"]] == []
    assert (report["cves"], report["recommendations"]) == ([], {})
    warned = {(entry["algorithm"], output) for entry in entries for output in entry["notes"].get("warn", ())}
    text = (Path(hostkeys.__file__).parent / "README.md").read_text()
    known = {(row[1], row[2]) for row in re.finditer(r"^\| `([^`]+)` \| ([^|]+) \| [^|]{20,} \|$", text, re.M)}
    assert warned == known


@pytest.mark.parametrize(
    "option",
    [
        "KexAlgorithms=diffie-hellman-group14-sha256,diffie-hellman-group-exchange-sha256,ecdh-sha2-nistp256",
        "Ciphers=chacha20-poly1305@openssh.com,aes128-ctr",
        "HostKeyAlgorithms=ssh-rsa,ecdsa-sha2-nistp256",
    ],
)
async def test_client_that_knows_only_others_is_refused(door: FrontDoor, option: str) -> None:
    result = await door.ssh("true", options=["-o", option, "-o", "LogLevel=INFO"])
    assert (result.status, b"no matching" in result.err) == (255, True)


async def test_pings_are_announced_and_answered(door: FrontDoor) -> None:
    async with peer(door.port) as client:
        _, output = await client.hear(MSG_EXT_INFO)
        packet = SSHPacket(output)
        extensions = {packet.get_string(): packet.get_string() for _ in range(packet.get_uint32())}
        assert extensions[b"ping@openssh.com"] == b"0"
        await client.log_in(asyncssh.read_private_key(door.key))
        for text in (b"PING!", b"", bytes(30_000)):
            client.say(MSG_PING, String(text))
            assert await client.hear(MSG_PONG) == (MSG_PONG, String(text))


async def test_a_ping_before_the_login_gets_no_answer(door: FrontDoor) -> None:
    async with peer(door.port) as client:
        client.say(MSG_PING, String(b"PING!"))
        await client.until_lost()
        assert not door.programs.logins


async def test_pings_between_keystrokes_delay_and_change_nothing(door: FrontDoor) -> None:
    """OpenSSH's client from 9.5 on sends one with each keystroke, and some without, to hide when keys are pressed."""
    async with peer(door.port) as client:
        await client.log_in(asyncssh.read_private_key(door.key))
        channel, _ = await client.open_channel()
        client.request(channel, b"exec", String(b"cat"), reply=False)
        echoed = b""
        for number in range(50):
            ping, key = b"PING!%d" % number, b"%d" % (number % 10)
            client.say(MSG_PING, String(ping))
            if number % 5:
                client.say(MSG_CHANNEL_DATA, UInt32(channel), String(key))
                echoed += (await client.hear(MSG_CHANNEL_DATA))[1][4:]
            # What was heard meanwhile is dropped, so the answer is asked for again.
            client.say(MSG_PING, String(ping))
            assert await client.hear(MSG_PONG) == (MSG_PONG, String(ping))
        assert echoed == b"".join(b"%d" % (number % 10) for number in range(50) if number % 5)


@pytest.mark.parametrize("fast_path", [True, False], ids=["ours", "asyncssh"])
@pytest.mark.parametrize("cipher", ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes256-ctr"])
async def test_every_cipher_carries_data(tmp_path: Path, cipher: str, fast_path: bool) -> None:
    data = bytes(range(256)) * 4000
    async with front_door(tmp_path, ssh=Ssh(fast_path=fast_path)) as door:
        assert (await door.ssh("cat", stdin=data, options=["-c", cipher])).out == data


@pytest.mark.parametrize("mac", ["hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256"])
async def test_every_mac_carries_data(door: FrontDoor, mac: str) -> None:
    data = bytes(range(256)) * 4000
    assert (await door.ssh("cat", stdin=data, options=["-c", "aes256-ctr", "-m", mac])).out == data


async def test_bulk_moves_to_gcm_although_the_client_prefers_ctr(door: FrontDoor) -> None:
    options = ["-o", "LogLevel=DEBUG1", "-c", "aes256-ctr,aes128-gcm@openssh.com"]
    chosen = b"debug1: kex: server->client cipher: "
    little = await door.ssh("true", options=options)
    assert [line.split()[4] for line in little.err.splitlines() if line.startswith(chosen)] == [b"aes256-ctr"]
    for command, stdin in (("head -c 8000000 /dev/zero; sleep 0.2", b""), ("wc -c; sleep 0.2", bytes(8_000_000))):
        much = await door.ssh(command, options=options, stdin=stdin)
        assert [line.split()[4] for line in much.err.splitlines() if line.startswith(chosen)] == [
            b"aes256-ctr",
            b"aes128-gcm@openssh.com",
        ]


async def test_data_right_behind_a_change_from_gcm_to_ctr_arrives(door: FrontDoor) -> None:
    data = bytes(range(256)) * 4000
    async with asyncssh.connect(
        "127.0.0.1", door.port, username="user", client_keys=[str(door.key)], known_hosts=None, config=None,
        agent_path=None, encryption_algs=["aes128-gcm@openssh.com", "aes256-ctr"],
    ) as connection:  # fmt: skip
        process = await connection.create_process("cat", encoding=None)
        connection._enc_algs = [b"aes256-ctr"]
        connection._send_kexinit()
        connection._kexinit_sent = True
        # Held by the client until its NEWKEYS, with which it leaves in one piece.
        process.stdin.write(data)
        process.stdin.write_eof()
        assert await process.stdout.read() == data
        assert connection.get_extra_info("send_cipher") == "aes256-ctr"


async def test_all_host_keys_are_sent_to_clients_that_want_them(door: FrontDoor) -> None:
    known = door.place / "known_hosts"
    await door.ssh("true")
    assert known.read_text().count("ssh-") == 1
    client = await door.start("cat", options=["-o", "UpdateHostKeys=yes"])
    await until(lambda: "ssh-rsa" in known.read_text())
    await client.communicate(b"")
    # The RSA key that was proven is good for a login by itself.
    options = ["-o", "HostKeyAlgorithms=rsa-sha2-256", "-o", "StrictHostKeyChecking=yes"]
    assert (await door.ssh("exit 4", options=options)).status == 4


async def test_logins_with_different_rsa_hashes_do_not_mix(door: FrontDoor) -> None:
    # The key object is shared by all connections; what one asks of it must not reach another.
    async def log_in(algorithm: str) -> None:
        async with asyncssh.connect(
            "127.0.0.1", door.port, username="user", client_keys=[str(door.key)], known_hosts=None, config=None,
            agent_path=None, server_host_key_algs=[algorithm],
        ):  # fmt: skip
            pass

    for _ in range(5):
        await asyncio.gather(*(log_in(f"rsa-sha2-{bits}") for bits in (256, 512, 256, 512)))


async def test_defect_in_a_callback_ends_its_channel_only(tmp_path: Path) -> None:
    # A pattern that is no text makes the channel fail when the client sends a variable.
    broken = Access(accept_env=(5,))  # type: ignore[arg-type]
    async with (
        front_door(tmp_path, ssh=Ssh(), access=broken) as door,
        asyncssh.connect(
            "127.0.0.1", door.port, username="user", client_keys=[str(door.key)], known_hosts=None, config=None,
            agent_path=None,
        ) as connection,
    ):  # fmt: skip
        running = await connection.create_process("cat")
        with pytest.raises(asyncssh.Error):
            await connection.create_process("true", env={"LANG": "C"})
        running.stdin.write("still here")
        running.stdin.write_eof()
        assert (await running.wait()).stdout == "still here"
