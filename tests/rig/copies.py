# Names that are not UTF-8 need the functions that take bytes.
# ruff: noqa: PTH101, PTH103, PTH115, PTH118, PTH123, PTH211
"""Copies without a gateway: ``sshgate cp`` with a program in ssh's place that runs a shell on this machine.

The far end is then a real shell with exactly the programs that a kind of sandbox image would have.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

# What a small image has besides the shell.
_COREUTILS = ("sha256sum", "mv", "mkdir", "stat", "tee", "cat", "chmod", "rm", "touch", "xargs", "sync")
KINDS = {
    "python": ("python3",),
    "tar": (*_COREUTILS, "tar"),
    "busybox": (*_COREUTILS, "tar"),
}


# Passes bytes on as they come, and ends after so many; with a second argument it stays, silent, and leaves its
# process id in a file of that name: a connection that hangs.
_RELAY = """
import os, sys, time
left = int(sys.argv[1])
while left and (data := os.read(0, min(left, 65536))):
    left -= len(data)
    while data:
        data = data[os.write(1, data):]
if sys.argv[2:] and not left:
    with open(sys.argv[2] + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(sys.argv[2] + ".new", sys.argv[2])
    time.sleep(60)
"""


class Ended(NamedTuple):
    """How a copy ended."""

    status: int
    out: str
    err: str


class Far:
    """A far end of one kind, or with the programs that ``kind`` names.

    ``through`` is how the shell is started; ``{relay}`` in it passes on so many bytes.
    """

    def __init__(self, place: Path, kind: str, through: str = "") -> None:
        self.kind = kind
        self.home = place / "home"
        self.home.mkdir(parents=True, exist_ok=True)
        self.ssh = place / "ssh"
        programs = place / "bin"
        shutil.rmtree(programs, ignore_errors=True)
        programs.mkdir()
        busybox = shutil.which("busybox")
        for name in KINDS.get(kind, kind.split()):
            found = busybox if kind == "busybox" else sys.executable if name == "python3" else shutil.which(name)
            assert found, f"this test needs {name}"
            if name == "python3":
                # A link to a virtual environment's Python would lose its way home.
                (programs / name).write_text(f'#!/bin/sh\nexec {found} "$@"\n')
                (programs / name).chmod(0o755)
            else:
                (programs / name).symlink_to(found)
        relay = place / "relay.py"
        relay.write_text(_RELAY)
        self._write(through.replace("{relay}", f"{sys.executable} {relay}") or 'exec /bin/sh -c "$last"', programs)

    def _write(self, start: str, programs: Path) -> None:
        self.ssh.write_text(
            f'#!/bin/sh\nfor last; do :; done\ncd {self.home}\nexport HOME={self.home} LAST="$last" '
            f'FULL="$PATH"\nexport PATH={programs}\n{start}\n'
        )
        self.ssh.chmod(0o755)

    def argv(self, *arguments: str | bytes) -> list[str | bytes]:
        """The command line of a copy."""
        return [sys.executable, "-m", "sshgate", "cp", "--ssh", str(self.ssh), *arguments]

    def cp(self, *arguments: str | bytes, seconds: float = 60) -> Ended:
        """Copy, to the end."""
        ended = subprocess.run(self.argv(*arguments), capture_output=True, timeout=seconds, check=False)
        return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode("utf-8", "backslashreplace"))


def nasty_tree(top: Path) -> None:
    """Names, kinds, modes and times that copies trip over. No special files."""
    at = os.fsencode(top)
    os.makedirs(at + b"/sub/empty")
    names = [
        b"plain", b"with space", b"new\nline", b"quote'", b'double"', b"star*", b"-rf", b"back\\slash", b"$HOME",
        b"`id`", b"caf\xc3\xa9", b"\xff\xfe not utf-8", b"x" * 255, b".hidden", b"..dots", b"trailing ", b"tab\t",
        b"~", b"a:b",
    ]  # fmt: skip
    for number, name in enumerate(names):
        path = at + b"/" + name
        with open(path, "wb") as file:
            file.write(name * number)
        os.chmod(path, [0o644, 0o600, 0o755, 0o444, 0o640][number % 5])
        os.utime(path, ns=(10**18 + number, 10**18 + number * 10**9))
    (top / "empty file").touch()
    (top / "sub" / "big").write_bytes(os.urandom(3_000_001))
    os.link(at + b"/plain", at + b"/sub/linked")
    os.symlink("plain", at + b"/to file")
    os.symlink("sub", at + b"/to directory")
    os.symlink("/nowhere/at all", at + b"/dangling")
    with open(at + b"/sparse", "wb") as file:
        file.seek(6_000_000)
        file.write(b"end")
    os.utime(at + b"/sparse", ns=(0, 5 * 10**9))
    os.makedirs(at + b"/closed")
    (top / "closed" / "inside").write_text("inside")
    os.chmod(at + b"/closed", 0o555)
    os.utime(at + b"/sub/empty", ns=(0, 7 * 10**9))
    os.utime(at + b"/sub", ns=(0, 8 * 10**9))


class Seen(NamedTuple):
    """What can be compared of one entry."""

    kind: int
    mode: int
    mtime: int
    what: str


def picture(top: Path, times: bool = True) -> dict[bytes, Seen]:
    """Every entry below ``top`` by its path. Symbolic links are not followed; seconds only of times."""
    seen = {}
    for directory, directories, files in os.walk(os.fsencode(top)):
        for name in directories + files:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            kind = stat.S_IFMT(status.st_mode)
            what = ""
            if kind == stat.S_IFREG:
                with open(path, "rb") as file:
                    what = hashlib.file_digest(file, "sha256").hexdigest()
            elif kind == stat.S_IFLNK:
                what = os.fsdecode(os.readlink(path))
            mtime = status.st_mtime_ns // 10**9 if times else 0
            seen[os.path.relpath(path, os.fsencode(top))] = Seen(kind, stat.S_IMODE(status.st_mode), mtime, what)
    return seen


def leftovers(top: Path) -> list[str]:
    """Temporary files of a copy that are still there."""
    return [str(path) for path in top.rglob(".sshgate-*")]
