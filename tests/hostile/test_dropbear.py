"""dropbear's client, which guesses the key exchange before it has heard what the server can do."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.constants import MSG_KEXINIT
from asyncssh.packet import String

from sshgate.config.model import Ssh
from sshgate.ssh.options import KEX, connection_options
from tests.hostile.front_door import FrontDoor, front_door
from tests.hostile.peer import Peer, peer

needs_dbclient = pytest.mark.skipif(shutil.which("dbclient") is None, reason="no dbclient on this machine")


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[FrontDoor]:
    async with front_door(tmp_path) as opened:
        yield opened


@needs_dbclient
async def test_dbclient_runs_a_command(door: FrontDoor) -> None:
    argv = ["dbclient", "-y", "-y", "-i", door.place / "dropbear", "-p", str(door.port), "user@127.0.0.1", "exit 5"]
    made = await door.ssh(argv=["dropbearkey", "-t", "ed25519", "-f", str(door.place / "dropbear")])
    line = next(text for text in made.out.decode().splitlines() if text.startswith("ssh-ed25519"))
    (door.place / "users" / "user").write_text(line + "\n")
    result = await door.ssh(argv=[str(word) for word in argv])
    assert result.status == 5, result.err


class Guesser(Peer):
    """Sends the first packet of its first method along with its offer, as RFC 4253 section 7 allows."""

    def send_packet(self, pkttype: int, *args: bytes, handler: Any = None) -> None:
        if pkttype != MSG_KEXINIT:
            super().send_packet(pkttype, *args, handler=handler)
            return
        # first_kex_packet_follows is the byte before the last four.
        offer = args[0][:-5] + b"\1" + args[0][-4:]
        self._client_kexinit = bytes([MSG_KEXINIT]) + offer
        super().send_packet(pkttype, offer)
        super().send_packet(30, String(b"a guess that cannot be right"))


@pytest.mark.parametrize(
    ("first", "host_key"),
    [
        ("mlkem768x25519-sha256", "ssh-ed25519"),  # chosen, but not the server's first
        ("curve25519-sha256@libssh.org", "ssh-ed25519"),
        ("curve25519-sha256", "rsa-sha2-256"),  # the right method with the wrong kind of host key
        ("diffie-hellman-group14-sha256", "ssh-ed25519"),
    ],
)
async def test_wrong_guess_is_ignored(door: FrontDoor, first: str, host_key: str) -> None:
    kex = [first, *(name for name in KEX if name != first)]
    host_keys = [host_key, "ssh-ed25519", "rsa-sha2-512"]
    async with peer(door.port, Guesser, kex_algs=kex, server_host_key_algs=host_keys) as client:
        await client.log_in(asyncssh.read_private_key(door.key))


@pytest.mark.parametrize("first", ["curve25519-sha256", "mlkem768x25519-sha256", "diffie-hellman-group14-sha256"])
@pytest.mark.parametrize("host_key", ["ssh-ed25519", "rsa-sha2-256"])
async def test_every_order_of_the_client_agrees(door: FrontDoor, first: str, host_key: str) -> None:
    kex = [first, *(name for name in KEX if name != first)]
    async with peer(door.port, kex_algs=kex, server_host_key_algs=[host_key]) as client:
        await client.log_in(asyncssh.read_private_key(door.key))


def test_first_method_of_the_server_is_what_dropbear_guesses(tmp_path: Path) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    options = connection_options(Ssh(), asyncssh.load_keypairs([key]), asyncssh.SSHServer)
    assert options.kex_algs[0] == b"curve25519-sha256"
