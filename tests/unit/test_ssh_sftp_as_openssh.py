"""The fallback file server against OpenSSH's: the same generated packets to both, the same answers, the same files."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import stat
import struct
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from sshgate.sandbox import launcher
from sshgate.sandbox.launcher import SFTP_SERVERS
from sshgate.sandbox.shell_files import ShellFiles
from sshgate.ssh.sftp import serve_files
from sshgate.ssh.sftp_packets import Attrs, Packet, Unreadable
from sshgate.stream.bridge import Traffic
from sshgate.stream.interfaces import Exited, Outcome
from sshgate.transfer.ssh_program import SshProgram
from tests.rig.ends import TestClient

SERVER = next((path for path in SFTP_SERVERS if os.access(path, os.X_OK)), None)
# As root nothing is forbidden; nobody is refused alike by both. The server wants an account.
USER = 65_534
AS_USER = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"] if os.geteuid() == 0 else []
PLACES = [
    b"a", b"b", b"d", b"d/x", b"d/y", b"link", b"dangling", b"loop", b"dirlink", b"dirlink/x", b"d/../a", b"", b".",
    b"..", b"/", b"//", b"/etc/passwd", b"missing", b"missing/x", b"a/x", b"a/", b"d/", b"d//x", b"-rf", b"new\nline",
    b"'q'", b"x" * 256, b"y/" * 2100, b"noread", b"locked", b"locked/x", b"rodir", b"rodir/x", b"rodir/new", b"empty",
    b"\xff\xfe",
]  # fmt: skip
PATIENCE = 60.0


def u32(number: int) -> bytes:
    return struct.pack(">I", number)


def string(data: bytes) -> bytes:
    return u32(len(data)) + data


class Peer:
    """One of the two servers, asked one packet at a time."""

    def __init__(self, home: Path, write: Any, read: Any) -> None:
        self.home = home
        self.handles: list[bytes] = []
        self._write = write
        self._read = read

    async def ask(self, kind: int, body: bytes, number: int = 7) -> bytes:
        """The answer's payload; empty when the server has ended."""
        await self._write(string(bytes([kind]) + u32(number) + body))
        with suppress(asyncio.IncompleteReadError):
            async with asyncio.timeout(PATIENCE):
                size = struct.unpack(">I", await self._read(4))[0]
                answer: bytes = await self._read(size)
                return answer
        return b""


def furnish(home: Path) -> None:
    """The files that both begin with."""
    home.mkdir()
    (home / "d").mkdir()
    (home / "empty").mkdir()
    (home / "locked").mkdir()
    (home / "rodir").mkdir()
    for name, content in (("a", b"content of a\n" * 50), ("d/x", b"x"), ("noread", b"secret"), ("rodir/x", b"r")):
        (home / name).write_bytes(content)
    for name, target in (("link", "a"), ("dangling", "nowhere"), ("loop", "loop"), ("dirlink", "d")):
        (home / name).symlink_to(target)
    for directory, names, files in os.walk(home):
        for name in [*names, *files]:
            os.utime(Path(directory) / name, (1_000_000, 1_000_000), follow_symlinks=False)
            if AS_USER:
                os.chown(Path(directory) / name, USER, USER, follow_symlinks=False)
    (home / "noread").chmod(0)
    (home / "locked").chmod(0)
    (home / "rodir").chmod(0o555)
    home.chmod(0o755)
    if AS_USER:
        os.chown(home, USER, USER)


@asynccontextmanager
async def real(home: Path) -> AsyncIterator[Peer]:
    assert SERVER is not None
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        *AS_USER, SERVER, "-d", str(home), stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL, cwd=home,
        env={**os.environ, "HOME": str(home)},
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None

    async def write(data: bytes) -> None:
        assert child.stdin is not None
        with suppress(ConnectionError):
            child.stdin.write(data)
            await child.stdin.drain()

    try:
        yield Peer(home, write, child.stdout.readexactly)
    finally:
        child.stdin.close()
        await child.wait()


@asynccontextmanager
async def fallback(home: Path, programs: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Peer]:
    monkeypatch.setenv("HOME", str(home))
    shell = ["/bin/sh"]
    setpriv = [shutil.which(AS_USER[0]) or "", *AS_USER[1:]] if AS_USER else []
    if programs == "busybox":
        busybox = shutil.which("busybox")
        assert busybox, "this test needs busybox"
        (home.parent / "bin").mkdir()
        (home.parent / "bin" / "busybox").symlink_to(busybox)
        monkeypatch.setenv("PATH", str(home.parent / "bin"))
        shell = [busybox, "sh"]
    process = await SshProgram.start([*setpriv, *shell, "-c", f"cd;umask 022;{launcher.FILES_LOOP}"])
    client = TestClient()
    serving = asyncio.create_task(serve_files(client, ShellFiles(process), Traffic()))

    async def write(data: bytes) -> None:
        client.input.put(data)

    async def read(size: int) -> bytes:
        while len(client.written) < size:
            if serving.done():
                raise asyncio.IncompleteReadError(bytes(client.written), size)
            await asyncio.sleep(0.0005)
        taken = bytes(client.written[:size])
        del client.written[:size]
        return taken

    try:
        yield Peer(home, write, read)
    finally:
        client.input.put_eof()
        outcome: Outcome | None = await serving
        assert outcome in (Exited(0), Exited(255), Exited(11)), outcome
        await process.close()


@pytest.fixture
def homes() -> Iterator[tuple[Path, Path]]:
    """Two homes with the same files. Not below pytest's own directories, which are for their owner alone."""
    if SERVER is None:
        pytest.skip("no sftp-server on this machine")
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    for name in ("one", "two"):
        (place / name).mkdir()
        furnish(place / name / "home")
    old = os.umask(0o022)
    yield place / "one" / "home", place / "two" / "home"
    os.umask(old)
    subprocess.run(["/bin/chmod", "-R", "u+rwx", place], check=True)
    shutil.rmtree(place)


@pytest.fixture(params=["coreutils", "busybox"])
async def both(
    request: pytest.FixtureRequest, homes: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Peer, Peer]]:
    async with real(homes[0]) as theirs, fallback(homes[1], request.param, monkeypatch) as ours:
        yield theirs, ours


async def same(both: tuple[Peer, Peer], kind: int, body: Any, note: object = "") -> bytes:
    """Ask both; their answers mean the same. ``body`` is bytes, or makes them of a peer. Returns ours."""
    theirs, ours = [await peer.ask(kind, body(peer) if callable(body) else body) for peer in both]
    report = [meaning(answer, peer) for answer, peer in zip((theirs, ours), both, strict=True)]
    assert report[1] == report[0], (kind, note, body if isinstance(body, bytes) else body(both[1]))
    return ours


def meaning(answer: bytes, peer: Peer) -> object:
    """What an answer says, without what is each server's own: homes, handles, times of now, lines for people."""
    if not answer:
        return "ended"
    kind, number, rest = answer[0], answer[1:5], answer[5:]
    if kind == 101:
        code = struct.unpack(">I", rest[:4])[0]
        # "Failure" may say why.
        return "status", number, code, "" if code == 4 else rest[8 : 8 + struct.unpack(">I", rest[4:8])[0]]
    if kind == 102:
        return "handle", number
    if kind == 104:
        return "names", number, sorted(names(rest, peer), key=repr)
    if kind == 105:
        return "attributes", number, attributes(rest)[0]
    if kind == 201 and len(rest) == 88:
        room = struct.unpack(">11Q", rest)
        return "room", number, room[1], room[2], room[10]
    return kind, number, rest


def names(rest: bytes, peer: Peer) -> list[object]:
    count, at = struct.unpack(">I", rest[:4])[0], 4
    found: list[object] = []
    for _ in range(count):
        words = []
        for _ in range(2):
            size = struct.unpack(">I", rest[at : at + 4])[0]
            words.append(rest[at + 4 : at + 4 + size].replace(os.fsencode(peer.home.parent), b"~"))
            at += 4 + size
        report, used = attributes(rest[at:])
        at += used
        if words[0] != b"..":  # another directory
            found.append((words[0], words[1].endswith(words[0]), report))
    assert at == len(rest)
    return found


def attributes(data: bytes) -> tuple[object, int]:
    flags = struct.unpack(">I", data[:4])[0]
    if not flags:
        return "none", 4
    size, uid, gid, mode, _, modified = struct.unpack(">QIIIII", data[4:32])
    return (
        flags,
        0 if stat.S_ISDIR(mode) else size,
        uid,
        gid,
        oct(mode),
        modified if modified < 1 << 30 else "now",
    ), 32


def tree(home: Path) -> list[object]:
    """All that is below ``home``."""
    found: list[object] = []
    for path in sorted(home.rglob("*")):
        status = path.lstat()
        content: object = None
        if stat.S_ISLNK(status.st_mode):
            content = path.readlink()
        elif stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        when = status.st_mtime if status.st_mtime < 1 << 30 else "now"
        found.append(
            (path.relative_to(home), oct(status.st_mode), status.st_uid, content, stat.S_ISDIR(status.st_mode) or when)
        )
    return found


async def begin(both: tuple[Peer, Peer]) -> None:
    for peer in both:
        await peer._write(string(b"\1" + u32(3)))
        size = struct.unpack(">I", await peer._read(4))[0]
        assert (await peer._read(size))[:5] == b"\2" + u32(3)


def attrs(pick: random.Random, modes: tuple[int, ...] = (0o644, 0o600, 0o755, 0o444, 0o1777, 0o100664)) -> bytes:
    """Attributes that a request may set."""
    flags, body = 0, b""
    if pick.random() < 0.3:
        flags, body = flags | 1, body + struct.pack(">Q", pick.choice([0, 5, 1000]))
    if pick.random() < 0.1:
        flags, body = flags | 2, body + (u32(USER) + u32(USER) if AS_USER else u32(os.getuid()) + u32(os.getgid()))
    if pick.random() < 0.4:
        flags, body = flags | 4, body + u32(pick.choice(modes))
    if pick.random() < 0.4:
        flags, body = flags | 8, body + u32(pick.choice([0, 5, 999_999_999])) + u32(pick.choice([1, 77, 2_000_000]))
    return u32(flags) + body


async def work_on_a_file(both: tuple[Peer, Peer], pick: random.Random, path: bytes, extra: bytes) -> None:
    """Open something, and if that goes well read, write, look at and close it."""
    flags = pick.choice([1, 2, 3, 10, 26, 11, 0x2A, 6, 14, 0, 9, 17, 0x20])
    opened = [await peer.ask(3, string(path) + u32(flags) + u32(0) + extra) for peer in both]
    report = [meaning(answer, peer) for answer, peer in zip(opened, both, strict=True)]
    assert report[1] == report[0], (path, flags)
    if opened[1][0] != 102:
        return
    handles = {id(peer): answer[9:] for peer, answer in zip(both, opened, strict=True)}
    for _ in range(pick.randrange(4)):
        offset = struct.pack(">Q", pick.choice([0, 3, 700, 100_000, 1 << 63]))
        kind, rest = pick.choice(
            [
                (5, offset + u32(pick.choice([0, 1, 100, 40_000, 1 << 31]))),
                (6, offset + string(pick.randbytes(pick.choice([0, 1, 100, 9000])))),
                (8, b""), (10, attrs(pick, (0o644, 0o600))), (12, b""), (200, b""),
            ]
        )  # fmt: skip
        if kind == 10 and path in (b"", b".", b".."):
            continue  # where both are at home
        name = string(b"fsync@openssh.com") if kind == 200 else b""

        def body(peer: Peer, name: bytes = name, rest: bytes = rest) -> bytes:
            return name + string(handles[id(peer)]) + rest + extra

        await same(both, kind, body, (path, flags))
    await same(both, 4, lambda peer: string(handles[id(peer)]) + extra)
    await same(both, pick.choice([4, 5, 8]), lambda peer: string(handles[id(peer)]) + bytes(12), "closed")


async def work_on_a_directory(both: tuple[Peer, Peer], path: bytes, extra: bytes) -> None:
    opened = [await peer.ask(11, string(path) + extra) for peer in both]
    report = [meaning(answer, peer) for answer, peer in zip(opened, both, strict=True)]
    assert report[1] == report[0], path
    if opened[1][0] != 102:
        return
    if path in (b".", b"d", b"empty", b"dirlink", b"rodir", b"d/", b""):
        for _ in range(2):
            await same(both, 12, lambda peer: string(opened[both.index(peer)][9:]) + extra, path)
    await same(both, 4, lambda peer: string(opened[both.index(peer)][9:]) + extra)


async def work_on_paths(both: tuple[Peer, Peer], pick: random.Random, path: bytes, extra: bytes) -> None:
    other = pick.choice([place for place in PLACES if len(place) < 4096])
    kind, name, rest = pick.choice(
        [
            (7, b"", b""), (17, b"", b""), (9, b"", attrs(pick)), (13, b"", b""), (14, b"", attrs(pick)),
            (15, b"", b""), (16, b"", b""), (18, b"", string(other)), (19, b"", b""), (20, b"", string(other)),
            (200, b"posix-rename@openssh.com", string(other)), (200, b"hardlink@openssh.com", string(other)),
            (200, b"statvfs@openssh.com", b""), (200, b"lsetstat@openssh.com", attrs(pick)), (200, b"no@such", b""),
            (200, b"expand-path@openssh.com", b""), (200, b"limits@openssh.com", b""),
        ]
    )  # fmt: skip
    if path.startswith(b"/") and kind not in (7, 16, 17):
        return
    if path in (b"", b".", b"..") and (kind == 9 or name.startswith(b"lsetstat")):
        return  # where both are at home
    if name == b"limits@openssh.com":
        return  # the number of handles is each server's own
    await same(both, kind, (string(name) if name else b"") + string(path) + rest + extra, (name, path, other))


@pytest.mark.parametrize("seed", range(10))
async def test_both_answer_alike_and_leave_the_same(both: tuple[Peer, Peer], seed: int) -> None:
    pick = random.Random(seed)
    await begin(both)
    for _ in range(60):
        path = pick.choice(PLACES)
        extra = pick.choice([b"", b"", b"\0", b"more bytes than there should be"])
        work = pick.randrange(4)
        if work == 0:
            await work_on_a_file(both, pick, path, extra)
        elif work == 1:
            await work_on_a_directory(both, path, extra)
        else:
            await work_on_paths(both, pick, path, extra)
    assert tree(both[1].home) == tree(both[0].home)


@pytest.mark.parametrize("number", range(7))
async def test_both_end_at_what_is_no_packet(both: tuple[Peer, Peer], number: int) -> None:
    kind, body = [
        (17, string(b"a")[:-1]), (6, string(b"\0\0\0\0") + bytes(8) + u32(100) + b"x"), (17, string(b"a\0b")),
        (17, b""), (3, string(b"a") + u32(1)), (9, string(b"a") + u32(1)), (200, b"\0"),
    ][number]  # fmt: skip
    await begin(both)
    await same(both, 17, string(b"a"))
    assert await same(both, kind, body) == b""


async def test_both_end_at_a_packet_of_a_megabyte(both: tuple[Peer, Peer]) -> None:
    await begin(both)
    assert await same(both, 17, string(bytes(1 << 20))) == b""


async def test_a_handle_is_no_other_kinds(both: tuple[Peer, Peer]) -> None:
    await begin(both)
    for handle in (b"", b"\0\0\0\7", b"\0\0\0\0\0", b"x" * 300):
        for kind, rest in ((4, b""), (5, bytes(12)), (6, bytes(12)), (8, b""), (10, u32(0)), (12, b"")):
            await same(both, kind, string(handle) + rest, handle)
        for name in (b"fsync@openssh.com", b"fstatvfs@openssh.com"):
            await same(both, 200, string(name) + string(handle))


@pytest.fixture
def future() -> Iterator[Path]:
    """A directory with a file whose time no calendar has: tmpfs keeps it."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        Path(place).chmod(0o755)
        (Path(place) / "far").touch()
        os.utime(Path(place) / "far", (1 << 60, 1 << 60))
        yield Path(place)


async def test_a_time_without_a_year_hides_nothing(both: tuple[Peer, Peer], future: Path) -> None:
    await begin(both)
    opened = [await peer.ask(11, string(os.fsencode(future))) for peer in both]
    listed = await same(both, 12, lambda peer: string(opened[both.index(peer)][9:]))
    assert string(b"far") in listed


def test_attributes_have_few_extended_ones() -> None:
    """Tens of thousands fit a packet: all of them would be read in one step."""
    few, many = (u32(1 << 31) + u32(number) + (string(b"") + string(b"")) * number for number in (64, 30_000))
    assert Packet(few).attrs() == Attrs(None, None, None, None)
    with pytest.raises(Unreadable):
        Packet(many).attrs()
