"""Security keys: whether their users must be there, and must have shown who they are."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import asyncssh
import pytest
from asyncssh.constants import MSG_USERAUTH_FAILURE, MSG_USERAUTH_SUCCESS

from sshgate.config.model import Access
from tests.hostile.front_door import FrontDoor, front_door, make_key
from tests.hostile.peer import peer
from tests.rig.securitykey import TOUCHED, VERIFIED, SecurityKey

ABSENT = 0
BOTH = TOUCHED | VERIFIED


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[FrontDoor]:
    make_key(tmp_path / "ca")
    async with front_door(tmp_path, access=Access(user_ca=tmp_path / "ca.pub")) as opened:
        yield opened


async def let_in(door: FrontDoor, key: SecurityKey, flags: int) -> bool:
    key.flags = flags
    async with peer(door.port) as client:
        await client.begin_login()
        client.ask_login(b"user", b"publickey", *client.signed(cast(asyncssh.SSHKey, key), b"user"))
        kind, _ = await client.hear(MSG_USERAUTH_SUCCESS, MSG_USERAUTH_FAILURE)
        return kind == MSG_USERAUTH_SUCCESS


def certify(signer: Path, public: Path, options: tuple[str, ...]) -> None:
    words = [word for option in options for word in ("-O", option)]
    subprocess.run(["ssh-keygen", "-q", "-s", signer, "-I", "x", "-n", "user", *words, public], check=True)


async def allowed(door: FrontDoor, key: SecurityKey) -> set[int]:
    return {flags for flags in (ABSENT, TOUCHED, VERIFIED, BOTH) if await let_in(door, key, flags)}


@pytest.mark.parametrize("curve", [False, True])
@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ("", {TOUCHED, BOTH}),
        ("touch-required", {TOUCHED, BOTH}),
        ("no-touch-required", {ABSENT, TOUCHED, VERIFIED, BOTH}),
        ("verify-required", {BOTH}),
        ("verify-required,no-touch-required", {VERIFIED, BOTH}),
    ],
)
async def test_a_key_line_says_what_its_user_must_show(
    door: FrontDoor, options: str, flags: set[int], curve: bool
) -> None:
    key = SecurityKey(curve)
    (door.place / "users/user").write_text(f"{options} {key.line}\n".lstrip())
    assert await allowed(door, key) == flags


async def test_a_plain_key_has_nobody_to_touch_it(door: FrontDoor) -> None:
    users = door.place / "users/user"
    users.write_text(f"verify-required {users.read_text()}")
    assert (await door.ssh("exit 4")).status == 4


@pytest.mark.parametrize(
    ("line", "options", "flags"),
    [
        # An authority for all: its certificates alone decide.
        (None, (), {TOUCHED, BOTH}),
        (None, ("no-touch-required",), {ABSENT, TOUCHED, VERIFIED, BOTH}),
        (None, ("verify-required",), {BOTH}),
        # One of the user's: both have to allow less, each may ask for more.
        ("cert-authority", ("no-touch-required",), {TOUCHED, BOTH}),
        ("cert-authority,no-touch-required", ("no-touch-required",), {ABSENT, TOUCHED, VERIFIED, BOTH}),
        ("cert-authority,no-touch-required", (), {TOUCHED, BOTH}),
        ("cert-authority,verify-required", (), {BOTH}),
    ],
)
async def test_a_certificate_says_it_too(
    door: FrontDoor, tmp_path: Path, line: str | None, options: tuple[str, ...], flags: set[int]
) -> None:
    key = SecurityKey()
    (tmp_path / "sk.pub").write_text(key.line + "\n")
    signer = tmp_path / "ca"
    if line is not None:
        signer = tmp_path / "own"
        (door.place / "users/user").write_text(f"{line} {make_key(signer)}\n")
    certify(signer, tmp_path / "sk.pub", options)
    key.certify(tmp_path / "sk-cert.pub")
    assert await allowed(door, key) == flags
