"""What was opened by a key or certificate that is taken away, or that runs out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest

from sshgate.config.model import Access
from sshgate.ssh.connection import RECHECK_SECONDS, SECOND_RECHECK_SECONDS
from tests.hostile.front_door import FrontDoor, front_door
from tests.hostile.polling import until
from tests.unit.test_ssh_authentication import Authority

NO_LONGER = "no longer accepted"


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[FrontDoor]:
    async with front_door(tmp_path, access=Access(user_ca=tmp_path / "user_ca.pub")) as opened:
        yield opened


def line_of(door: FrontDoor) -> Path:
    return door.place / "users/user"


def soon(seconds: float, form: str = "%Y%m%d%H%M%SZ") -> str:
    return time.strftime(form, time.gmtime(time.time() + seconds))


async def connected(door: FrontDoor, certificate: bool = False) -> asyncssh.SSHClientConnection:
    key: object = str(door.key)
    if certificate:
        key = (str(door.key), f"{door.key}-cert.pub")
    return await asyncssh.connect(
        "127.0.0.1", door.port, username="user", client_keys=[key], known_hosts=None, config=None, agent_path=None
    )


async def echoes(process: asyncssh.SSHClientProcess[str]) -> bool:
    process.stdin.write("x\n")
    return await process.stdout.readline() == "x\n"


async def refused(client: asyncssh.SSHClientConnection) -> str:
    """What another session, and a forwarded connection, are told."""
    with pytest.raises(asyncssh.ChannelOpenError) as session:
        await client.create_process("true")
    with pytest.raises(asyncssh.ChannelOpenError) as forward:
        await client.open_connection("localhost", 1)
    assert session.value.reason == forward.value.reason
    return session.value.reason


async def test_a_key_that_is_removed_ends_what_it_opened(door: FrontDoor) -> None:
    client = await door.start("echo up; exec sleep 60")
    assert client.stdout is not None
    assert await client.stdout.readline() == b"up\n"
    line_of(door).write_text("# nobody\n")
    async with asyncio.timeout(6):
        _, output = await client.communicate()
    assert client.returncode == 255
    assert NO_LONGER in output.decode()
    (login,) = door.programs.logins
    await until(lambda: login.closed and not login.running)


async def test_files_that_cannot_be_read_end_nothing_until_the_key_is_really_removed(door: FrontDoor) -> None:
    public, users = line_of(door).read_text(), door.place / "users"
    async with await connected(door) as client:
        process = await client.create_process("cat")
        line_of(door).unlink()
        for target in ("user", "/proc/self/mem"):  # ELOOP when it is opened, EIO when it is read
            line_of(door).symlink_to(target)
            await asyncio.sleep(RECHECK_SECONDS + SECOND_RECHECK_SECONDS + 1)
            assert await echoes(process)
            await client.create_process("true")
            line_of(door).unlink()
            line_of(door).write_text(public)
            await client.create_process("true")
            line_of(door).unlink()
        # The same of the whole directory.
        line_of(door).write_text(public)
        users.rename(door.place / "away")
        users.symlink_to("users")
        await asyncio.sleep(RECHECK_SECONDS + SECOND_RECHECK_SECONDS + 1)
        assert await echoes(process)
        users.unlink()
        async with asyncio.timeout(6):
            await client.wait_closed()


@pytest.mark.parametrize("change", ["# nobody", 'from="10.0.0.0/8" {}', 'command="true" {}', "restrict {}"])
async def test_a_key_that_lost_its_rights_opens_nothing_more_at_once(door: FrontDoor, change: str) -> None:
    public = line_of(door).read_text()
    async with await connected(door) as client:
        line_of(door).write_text(change.format(public) + "\n")
        assert NO_LONGER in await refused(client)
        async with asyncio.timeout(6):
            await client.wait_closed()


async def test_a_file_that_is_just_being_written_ends_nothing(door: FrontDoor) -> None:
    public = line_of(door).read_text()
    async with await connected(door) as client:
        process = await client.create_process("cat")
        assert await echoes(process)
        for _ in range(4):
            line_of(door).write_text("")
            await asyncio.sleep(0.3)
            line_of(door).write_text(public)
            await asyncio.sleep(1)
        # Another key beside it, or a comment, is nobody's loss.
        line_of(door).write_text(f"# more\n{public}")
        await asyncio.sleep(3)
        assert await echoes(process)
        await client.create_process("true")


async def test_a_line_that_runs_out_ends_nothing_and_opens_nothing_more(door: FrontDoor) -> None:
    public = line_of(door).read_text()
    line_of(door).write_text(f'expiry-time="{soon(2)}" {public}')
    async with await connected(door) as client:
        process = await client.create_process("cat")
        await asyncio.sleep(4.5)
        assert await echoes(process)
        assert NO_LONGER in await refused(client)
        line_of(door).write_text(f'expiry-time="{soon(60)}" {public}')
        await client.create_process("true")


async def test_a_certificate_that_runs_out_does_so_too_and_one_whose_authority_goes_ends_all(door: FrontDoor) -> None:
    line_of(door).unlink()
    authority = Authority(door.place)
    (door.place / "user_ca.pub").write_text(authority.public + "\n")
    authority.sign("-V", "-1m:+2s")
    async with await connected(door, certificate=True) as client:
        process = await client.create_process("cat")
        await asyncio.sleep(4.5)
        assert await echoes(process)
        assert NO_LONGER in await refused(client)
        (door.place / "user_ca.pub").write_text("")
        async with asyncio.timeout(6):
            await client.wait_closed()
