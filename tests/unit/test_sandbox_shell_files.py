"""Files served by a plain shell: the operations against the real thing, with each kind of shell."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest
from asyncssh.packet import String, UInt32, UInt64

from sshgate.sandbox import launcher
from sshgate.sandbox.shell_files import BLOCK, FilesLost, ShellFiles
from sshgate.ssh.sftp import MOST_BYTES, VERSION, serve_files
from sshgate.stream.bridge import Traffic
from sshgate.stream.interfaces import Exited
from sshgate.transfer.ssh_program import SshProgram
from tests.hostile.polling import until
from tests.rig.ends import TestClient
from tests.rig.lying_disk import lying_disk

NAMES = [b"with space", b"new\nline", b"-rf", b"quote'", b"*", b"\xff\xfe", b".hidden", b"..dots", b"x" * 255, b"end\n"]


@pytest.fixture(params=["coreutils", "busybox"])
async def files(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ShellFiles]:
    """A shell in ``tmp_path/home``; with busybox alone there are no other programs, and no links to it."""
    programs = tmp_path / "bin"
    programs.mkdir()
    busybox = shutil.which("busybox")
    assert busybox, "this test needs busybox"
    if request.param == "busybox":
        (programs / "busybox").symlink_to(busybox)
        monkeypatch.setenv("PATH", str(programs))
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    shell = (busybox, "sh") if request.param == "busybox" else ("/bin/sh",)
    process = await SshProgram.start([*shell, "-c", f"cd;{launcher.FILES_LOOP}"])
    try:
        made = ShellFiles(process)
        await made.begin()
        yield made
    finally:
        await process.close()


async def test_what_is_written_is_read_back(files: ShellFiles) -> None:
    content = os.urandom(2 * BLOCK + 1234)
    await files.open(b"./f", b"wct", 0o640)
    for start in range(0, len(content), 32_768):
        await files.write(b"./f", start, content[start : start + 32_768])
    await files.write(b"./f", 5, b"odd offset")
    expected = content[:5] + b"odd offset" + content[15:]
    assert (await files.status(b"./f", follow=False)).size == len(content)
    assert stat.S_IMODE((await files.status(b"./f", follow=False)).mode) == 0o640
    got = b""
    while data := await files.read(b"./f", len(got), 100_000):
        got += data
    assert got == expected
    assert await files.read(b"./f", BLOCK - 3, 10) == expected[BLOCK - 3 : BLOCK + 7]
    assert await files.read(b"./f", len(content) + 5, 10) == b""
    assert await files.read(b"./f", 10 * BLOCK, 10) == b""


async def test_fsync_fails_for_what_the_disk_has_lost(files: ShellFiles, tmp_path: Path) -> None:
    with lying_disk(tmp_path) as disk:
        path = os.fsencode(disk / "f")
        await files.open(path, b"wc", 0o644)
        for at in range(0, 16 << 20, 1 << 18):
            await files.write(path, at, os.urandom(1 << 18))
        with pytest.raises(OSError, match=r"No space left on device|Input/output error"):
            await files.act(b"synced", path)
        await files.act(b"removed", path)


async def test_a_growing_file_is_read_on(files: ShellFiles) -> None:
    await files.open(b"./f", b"wc", 0o644)
    await files.write(b"./f", 0, b"one")
    assert await files.read(b"./f", 0, 100) == b"one"
    await files.write(b"./f", 3, b"two")
    assert await files.read(b"./f", 3, 100) == b"two"


@pytest.mark.parametrize("name", NAMES)
async def test_any_name_is_kept(files: ShellFiles, name: bytes) -> None:
    await files.make_directory(b"./d", 0o755)
    path = b"./d/" + name
    await files.open(path, b"wc", 0o644)
    await files.write(path, 0, name)
    assert name in [found async for found, _ in await files.entries(b"./d")]
    assert await files.read(path, 0, 1000) == name
    await files.act(b"renamed", path, b"./there")
    await files.act(b"replaced", b"./there", path)
    await files.act(b"symlinked", name, b"./link")
    assert await files.target(b"./link") == name
    await files.change(path, mode=0o600, times=(5, 7), size=3)
    status = await files.status(path, follow=False)
    assert (stat.S_IMODE(status.mode), status.accessed, status.modified, status.size) == (0o600, 5, 7, 3)
    assert (await files.resolved(path)).endswith(b"/home/d/" + name)
    await files.act(b"synced", path)
    await files.act(b"removed", path)
    assert [found async for found, _ in await files.entries(b"./d") if found not in (b".", b"..")] == []


@pytest.mark.parametrize(
    ("operation", "paths", "number"),
    [
        (b"removed", (b"./nothing",), errno.ENOENT),
        (b"removed", (b"./d",), errno.EISDIR),
        (b"undirectory", (b"./d",), errno.ENOTEMPTY),
        (b"undirectory", (b"./f",), errno.ENOTDIR),
        (b"renamed", (b"./f", b"./d"), errno.EEXIST),
        (b"renamed", (b"./nothing", b"./x"), errno.ENOENT),
        (b"replaced", (b"./f", b"./d"), errno.EISDIR),
        (b"linked", (b"./f", b"./d"), errno.EEXIST),
        (b"symlinked", (b"x", b"./f"), errno.EEXIST),
    ],
)
async def test_a_refusal_has_its_own_number(
    files: ShellFiles, operation: bytes, paths: tuple[bytes, ...], number: int
) -> None:
    await files.make_directory(b"./d", 0o755)
    await files.make_directory(b"./d/e", 0o755)
    await files.open(b"./f", b"wc", 0o644)
    with pytest.raises(OSError) as refused:  # noqa: PT011 - its number is what is looked at
        await files.act(operation, *paths)
    assert refused.value.errno == number
    assert (await files.status(b"./f", follow=True)).size == 0  # the shell goes on


async def test_opening_knows_what_is_there(files: ShellFiles, tmp_path: Path) -> None:
    await files.open(b"./f", b"wcx", 0o644)
    await files.make_directory(b"./d", 0o755)
    await files.act(b"symlinked", b"nowhere", b"./dangling")
    os.mkfifo(tmp_path / "home" / "pipe")
    for path, letters, number in (
        (b"./f", b"wcx", errno.EEXIST), (b"./dangling", b"wcx", errno.EEXIST), (b"./d", b"w", errno.EISDIR),
        (b"./nothing", b"r", errno.ENOENT), (b"./no/where", b"wc", errno.ENOENT), (b"./pipe", b"r", errno.EINVAL),
    ):  # fmt: skip
        with pytest.raises(OSError) as refused:  # noqa: PT011
            await files.open(path, letters, 0o644)
        assert refused.value.errno == number, path


async def test_what_cannot_be_written_leaves_the_line_clean(files: ShellFiles) -> None:
    """The bytes that were fed must not be taken for the next operation."""
    with pytest.raises(OSError) as refused:  # noqa: PT011
        await files.write(b"./no/such/file", 0, b"touch ./evil\n" * 1000)
    assert refused.value.errno == errno.ENOENT
    assert [name async for name, _ in await files.entries(b".")] == [b".", b".."]


async def test_a_full_disk_is_reported(files: ShellFiles) -> None:
    with pytest.raises(OSError) as refused:  # noqa: PT011
        await files.write(b"/dev/full", 0, b"x")
    assert refused.value.errno == errno.ENOSPC


async def test_ten_thousand_names_are_listed(files: ShellFiles, tmp_path: Path) -> None:
    for number in range(10_000):
        (tmp_path / "home" / f"{number:05d}{'n' * 40}").touch()
    assert len([name async for name, _ in await files.entries(b".")]) == 10_002


async def test_the_room_of_the_disk_is_reported(files: ShellFiles) -> None:
    room, true = await files.space(b"."), os.statvfs("/")
    assert room.fragment * room.blocks > 0
    assert room.longest_name == true.f_namemax


async def test_a_shell_that_has_gone_is_reported(files: ShellFiles) -> None:
    await files._process.write(b"exit 3\n")
    with pytest.raises(FilesLost):
        await files.status(b".", follow=True)
    assert files.lost


@pytest.mark.parametrize("piece", [261_120, 32_768, 100_001])
async def test_pieces_of_any_size_arrive(files: ShellFiles, tmp_path: Path, piece: int) -> None:
    content = os.urandom(3_000_001)
    await files.open(b"./f", b"wct", 0o640)
    for start in range(0, len(content), piece):
        await files.write(b"./f", start, content[start : start + piece])
    assert (tmp_path / "home/f").read_bytes() == content
    got = b""
    while data := await files.read(b"./f", len(got), piece):
        got += data
    assert got == content


async def test_a_read_of_more_than_the_file_has_costs_no_more_than_that(files: ShellFiles, tmp_path: Path) -> None:
    with (tmp_path / "home" / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 30)
    client = TestClient()
    client.input.put(packet(1, UInt32(VERSION)))
    client.input.put(packet(3, UInt32(1), String("sparse"), UInt32(asyncssh.FXF_READ), UInt32(0)))
    serving = asyncio.create_task(serve_files(client, files, Traffic()))
    await until(lambda: b"\x66\0\0\0\1" in client.written)
    handle = bytes(client.written.partition(b"\x66\0\0\0\1")[2])
    before = len(client.written)
    client.input.put(packet(5, UInt32(2), handle, UInt64(0), UInt32(512 << 20)))
    client.input.put_eof()
    assert await serving == Exited(0)
    assert len(client.written) - before == MOST_BYTES + 13


def packet(kind: int, *parts: bytes) -> bytes:
    """A request of the protocol."""
    return String(b"".join((bytes([kind]), *parts)))
