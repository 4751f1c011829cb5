"""What ``sshgate cp`` could lose without a word: what a disk refuses late, odd times, very deep trees."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.rig.copies import KINDS, Far
from tests.rig.lying_disk import lying_disk

STOPPED = re.compile("(no space left on device|input/output error); the copy was stopped")


def many_files(top: Path) -> Path:
    """12 MB in small files."""
    top.mkdir()
    for number in range(400):
        (top / str(number)).write_bytes(os.urandom(30_000))
    return top


@pytest.mark.parametrize("kind", ["python", "tar"])  # busybox's sync does not look at what syncfs(2) returns
def test_what_the_disk_of_a_sandbox_refuses_late_is_no_success(kind: str, tmp_path: Path) -> None:
    far = Far(tmp_path / "far", kind)
    tree = many_files(tmp_path / "tree")
    with lying_disk(tmp_path) as disk:
        ended = far.cp(str(tree), f"dev=work:{disk}/there")
        assert ended.status == 1
        assert "the disk has lost" in ended.err or STOPPED.search(ended.err), ended.err
        assert kind == "python" or not (disk / "there").exists()


@pytest.mark.parametrize("kind", list(KINDS))
def test_what_the_disk_of_this_machine_refuses_late_is_no_success(kind: str, tmp_path: Path) -> None:
    far = Far(tmp_path / "far", kind)
    many_files(far.home / "tree")
    with lying_disk(tmp_path) as disk:
        ended = far.cp("dev=work:tree", str(disk / "there"))
    assert ended.status == 1
    assert STOPPED.search(ended.err), ended.err


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("seconds", [10_000_000_000, -10_000_000_000, -3])
def test_a_time_of_any_year_stops_no_copy(kind: str, seconds: int, tmp_path: Path) -> None:
    """The year 2286; nanoseconds in 64 bits end in 2262 and begin in 1677."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as wide:  # tmpfs keeps any time
        far = Far(Path(wide) / "far", kind)
        (source := Path(wide) / "source").mkdir()
        for name in ("small", "large"):
            (source / name).write_bytes(bytes(1 if name == "small" else 100_000))
            os.utime(source / name, ns=(0, seconds * 10**9 + 500_000_000))
        (source / "link").symlink_to("small")
        os.utime(source, (0, seconds))
        for arguments in ((str(source), "dev=work:there"), ("dev=work:there", f"{wide}/back")):
            ended = far.cp(*arguments)
            assert ended.status == 0, ended.err
        if kind == "busybox" and seconds < 0:
            return  # it knows no such times
        fraction = 0 if kind == "busybox" else 500_000_000
        kept = min(max(seconds * 10**9 + fraction, -(1 << 63)), (1 << 63) - 1)
        if kind == "busybox":
            kept -= kept % 10**9
        assert {(Path(wide) / "back" / name).stat().st_mtime_ns for name in ("small", "large")} == {kept}


def test_what_lies_deeper_than_a_record_is_long_is_copied_or_named(tmp_path: Path) -> None:
    far = Far(tmp_path / "far", "python")
    fd = os.open(tmp_path, os.O_RDONLY)
    for level in ["top"] + ["d" * 250] * 300:
        os.mkdir(level, dir_fd=fd)
        deeper = os.open(level, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(os.open("one", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.link("one", "two", src_dir_fd=fd, dst_dir_fd=fd)
    os.mkfifo("three", dir_fd=fd)
    os.close(fd)
    up = far.cp(str(tmp_path / "top"), "dev=work:there", "--json")
    assert '"entries": 303' in up.out
    assert "is a FIFO" in up.out
    down = far.cp("dev=work:there", str(tmp_path / "back"), "--json")
    assert '"entries": 303' in down.out


def test_a_question_of_ssh_is_not_drawn_over(tmp_path: Path) -> None:
    """ssh asks for passwords and host keys on the terminal itself, before anything is copied."""
    ask = 'printf "password: " >/dev/tty; read -r answer </dev/tty; exec /bin/sh -c "$last"'
    far = Far(tmp_path / "far", "python", ask)
    (tmp_path / "source").write_bytes(bytes(3_000_000))
    child, terminal = pty.fork()
    if not child:
        os.environ["TERM"] = "xterm"
        arguments = far.argv(str(tmp_path / "source"), "dev=work:file")
        os.execv(sys.executable, arguments)
    seen = b""
    try:
        while b"password: " not in seen:
            seen += os.read(terminal, 65_536)
        ready, _, _ = select.select([terminal], [], [], 1)
        assert not ready, os.read(terminal, 65_536)
        os.write(terminal, b"secret\n")
        with contextlib.suppress(OSError):  # the other side is closed
            while data := os.read(terminal, 65_536):
                seen += data
    finally:
        os.close(terminal)
        _, status = os.waitpid(child, 0)
    assert (status, seen.count(b"\x1b[?25l")) == (0, 1), "the bar is drawn once it copies"


def test_a_copy_needs_no_stderr(tmp_path: Path) -> None:
    far = Far(tmp_path / "far", "python")
    (tmp_path / "source").write_text("x")
    line = ["sh", "-c", 'exec "$@" 2>&-', "sh", *far.argv(str(tmp_path / "source"), "dev=work:file")]
    assert subprocess.run(line, check=False, capture_output=True).returncode == 0
    assert (far.home / "file").read_text() == "x"
