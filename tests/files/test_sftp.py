"""The sftp subsystem: the sandbox's own server as raw bytes, or served by the gateway where it has none."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import asyncssh
import pytest

from tests.files.conftest import KINDS, Worker
from tests.rig.gateway import Gateway
from tests.rig.library import connection
from tests.rig.ssh import Ssh


def test_an_upload_that_was_cut_is_resumed(work: Worker, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "whole").write_bytes(content)
    (tmp_path / "part").write_bytes(content[:1_234_567])
    ended = work.sftp(f"put {tmp_path}/part resumed", f"reput {tmp_path}/whole resumed", f"get resumed {tmp_path}/back")
    assert ended.status == 0, ended
    assert (tmp_path / "back").read_bytes() == content


def test_a_download_that_was_cut_is_resumed(work: Worker, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "whole").write_bytes(content)
    (tmp_path / "part").write_bytes(content[:1_234_567])
    ended = work.sftp(f"put {tmp_path}/whole down", f"reget down {tmp_path}/part")
    assert ended.status == 0, ended
    assert (tmp_path / "part").read_bytes() == content


def test_what_people_type_works(work: Worker, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("content\n")
    ended = work.sftp(
        "mkdir typed", "cd typed", "pwd", f"put {tmp_path}/f 'a b'", "chmod 600 'a b'", "ln -s 'a b' link",
        "rename 'a b' c", "ln c hard", "ls -l", "rm hard", "rm link", f"put {tmp_path}/f other", "rename other c",
        "df", f"get c {tmp_path}/back", "rm c", "cd ..", "rmdir typed",
    )  # fmt: skip
    assert ended.status == 0, ended
    assert b"typed\n" in ended.out
    assert b"-rw-------" in ended.out
    assert b" link" in ended.out
    assert (tmp_path / "back").read_text() == "content\n"


def test_a_missing_file_and_a_refusal_are_reported_as_such(work: Worker, tmp_path: Path) -> None:
    ended = work.sftp(f"get no-such-file {tmp_path}/x")
    assert ended.status == 1
    assert b"not found" in ended.err or b"No such file" in ended.err
    (tmp_path / "f").write_text("x")
    for place in ("/proc/nothing", "/no/such/place"):
        assert work.sftp(f"put {tmp_path}/f {place}").status == 1


@pytest.mark.asyncio
async def test_the_extensions_of_openssh_are_there(work: Worker, tmp_path: Path) -> None:
    async with connection(work.ssh) as made, made.start_sftp_client() as sftp:
        await sftp.mkdir("ext")
        async with sftp.open("ext/a", "wb") as file:
            await file.write(b"one")
            await file.fsync()
        async with sftp.open("ext/b", "wb") as file:
            await file.write(b"two")
        await sftp.posix_rename("ext/a", "ext/b")
        async with sftp.open("ext/b", "rb") as file:
            assert repr(await file.read()) == repr(b"one")
        async with sftp.open("ext/b", "ab") as file:
            await file.write(b", more")
        async with sftp.open("ext/b", "rb") as file:
            assert repr(await file.read()) == repr(b"one, more")
        assert (await sftp.statvfs("ext")).namemax >= 255
        assert (await sftp.stat("ext/b")).size == 9
        with pytest.raises(asyncssh.SFTPError):
            await sftp.open("ext/b", "xb")


def test_ten_thousand_entries_are_listed(work: Worker) -> None:
    names = "mkdir many && cd many && i=0 && while [ $i -lt 10000 ]; do : > file-number-$i; i=$((i+1)); done"
    work.run(names)
    ended = work.sftp("ls -1 many")
    assert ended.status == 0, ended.err
    assert len(ended.out.splitlines()) >= 10_000


def test_a_large_file_arrives_whole_both_ways(work: Worker, tmp_path: Path) -> None:
    content = os.urandom(1 << 20) * (8 if work.kind == "busybox" else 64)
    (tmp_path / "large").write_bytes(content)
    ended = work.sftp(f"put {tmp_path}/large large", f"get large {tmp_path}/back")
    assert ended.status == 0, ended
    assert hashlib.sha256((tmp_path / "back").read_bytes()).digest() == hashlib.sha256(content).digest()
    work.sftp("rm large")


@pytest.mark.parametrize("work", KINDS[1:], indirect=True)  # local sandboxes have no small disk
def test_a_full_disk_is_an_error(work: Worker, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(80 << 20))
    ended = work.sftp(f"put {tmp_path}/large /dev/shm/large")
    assert ended.status == 1
    work.sftp("rm /dev/shm/large")


def test_a_fresh_sandbox_takes_files_too(ssh: Ssh, shared: Gateway, provider: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("content")
    fresh = Worker(provider, ssh, (), shared)
    ended = fresh.sftp(f"put {tmp_path}/f f", f"get f {tmp_path}/back")
    assert ended.status == 0, ended
    assert (tmp_path / "back").read_text() == "content"
    assert fresh.scp(str(tmp_path / "f"), "dev@127.0.0.1:").status == 0
