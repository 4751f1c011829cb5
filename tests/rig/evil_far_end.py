"""A sandbox that lies: started in ssh's place, it speaks the copy's own language and breaks its rules.

``python evil_far_end.py SCENARIO ...ssh's arguments``. Scenarios are the functions below.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import tarfile
from collections.abc import Callable

from sshgate.transfer.records import (  # fmt: skip
    Chunk,
    Done,
    End,
    Enter,
    File,
    Hardlink,
    Have,
    Hole,
    Leave,
    Problem,
    Record,
    Same,
    Sum,
    Symlink,
    Whole,
    encode,
)


def say(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


def mark(words: str) -> None:
    say(b"\x01sshgate-cp " + words.encode() + b"\x02")


def line() -> bytes:
    got = b""
    while not got.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            sys.exit(1)
        got += byte
    return got


def as_agent(*records: Record) -> None:
    mark("python3")
    line()
    mark("python")
    mark("agent")
    for record in records:
        say(encode(record))


def whole(name: bytes, content: bytes = b"evil", mode: int = 0o644) -> tuple[Record, ...]:
    file = File(mode, 0, len(content), 0, name)
    return file, Chunk(content), Sum(hashlib.sha256(content).digest())


def small(name: bytes, digest: bytes = hashlib.sha256(b"evil").digest()) -> Record:
    return Whole(0o644, 0, name, b"evil", digest)


def inside(*records: Record) -> tuple[Record, ...]:
    return Enter(0o755, 0, b"tree"), *records, Leave(), End(9, 9)


def before_tar(output: bytes = b"") -> None:
    """What comes before the archive, and ``said`` in its place."""
    mark("cat chmod mkdir mv rm sha256sum stat tar tee touch xargs")
    line()
    mark("gnu")
    mark("tar")
    line()
    mark("tar")
    line()
    say(output)


def before_unpacking(output: bytes) -> None:
    """What comes before an upload by tar, and then ``said``."""
    mark("cat chmod mkdir mv rm sha256sum stat tar tee touch xargs")
    line()
    mark("gnu")
    mark("tar")
    line()
    say(output)


def as_tar(*members: tuple[tarfile.TarInfo, bytes], status: int = 0, cut: int = 0, digest: str = "") -> None:
    before_tar()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in members:
            info.size = info.size or len(content)
            tar.fileobj.write(info.tobuf(tarfile.PAX_FORMAT))
            tar.fileobj.write(content + bytes(-len(content) % 512))
            tar.offset = archive.tell()
    data = archive.getvalue()
    if cut:
        say(data[:cut])
        return
    say(data + b"\x01%d %s\x02" % (status, (digest or hashlib.sha256(data).hexdigest()).encode()))
    mark("tar")


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


def endless() -> None:
    as_agent(Enter(0o755, 0, b"tree"), File(0o644, 0, 1 << 43, 0, b"endless"))
    while True:
        say(encode(Chunk(b"x" * 65536)))


def swarm() -> None:
    as_agent(Enter(0o755, 0, b"tree"))
    number = 0
    while True:
        number += 1
        say(encode(Symlink(0, b"%d" % number, b"x")))


def small_swarm() -> None:
    as_agent(Enter(0o755, 0, b"tree"))
    number = 0
    while True:
        number += 1
        content = b"x" * 30_000
        say(encode(Whole(0o644, 0, b"%d" % number, content, hashlib.sha256(content).digest())))


def endless_header() -> None:
    before_tar()
    say(member("x", tarfile.XHDTYPE, size=1 << 40).tobuf(tarfile.GNU_FORMAT))
    while True:
        say(b"x" * 65536)


def nested_headers() -> None:
    """Each of these speaks of the next; none is an entry."""
    as_tar(*[(member("x", tarfile.XHDTYPE), b"")] * 1500, (member("tree"), b"evil"))


def garbage() -> None:
    as_agent()
    say(b"\xff" * 1000)


def noise() -> None:
    while True:
        say(b"x" * 65536)


# Those that take a copy instead of giving one.
TAKING: dict[str, Callable[[], None]] = {
    "answers-nobody-asked-for": lambda: as_agent(*[Have(0, 0, b"")] * 3),
    "has-more-than-was-sent": lambda: as_agent(Done(9, 9)),
    "ends-at-once": lambda: as_agent(),
    "sends-a-file": lambda: as_agent(*whole(b"evil")),
    "stops-with-escapes": lambda: as_agent(Problem(b"", "\x1b[31mred\nsshgate: all was copied.")),
    "tar-answers-without-end": lambda: before_unpacking(b"P" + b"x" * 200_000),
    "tar-stops": lambda: before_unpacking(b"Sno \x1b[31mroom\0"),
}

SCENARIOS: dict[str, Callable[[], None]] = {
    "parent": lambda: as_agent(*inside(*whole(b"../evil"))),
    "small-parent": lambda: as_agent(*inside(small(b"../evil"))),
    "small-absolute": lambda: as_agent(*inside(small(b"/tmp/sshgate-evil"))),
    "small-wrong-sum": lambda: as_agent(*inside(small(b"f", b"x" * 32))),
    "small-in-a-file": lambda: as_agent(*inside(File(0o644, 0, 8, 0, b"f"), Chunk(b"four"), small(b"g"))),
    "small-onto-link": lambda: as_agent(*inside(Symlink(0, b"l", b"../../outside"), small(b"l/canary"))),
    "small-swarm": small_swarm,
    "dots": lambda: as_agent(*inside(*whole(b".."))),
    "absolute": lambda: as_agent(*inside(*whole(b"/tmp/sshgate-evil"))),
    "slash": lambda: as_agent(*inside(*whole(b"a/b"))),
    "empty": lambda: as_agent(*inside(*whole(b""))),
    "nul": lambda: as_agent(*inside(*whole(b"a\0b"))),
    "enter-parent": lambda: as_agent(*inside(Enter(0o755, 0, b".."), *whole(b"evil"), Leave())),
    "leave-too-often": lambda: as_agent(
        Enter(0o755, 0, b"tree"), Leave(), Leave(), Leave(), *whole(b"evil"), End(1, 1)
    ),
    "through-link": lambda: as_agent(
        *inside(Symlink(0, b"l", b"../../outside"), Enter(0o755, 0, b"l"), *whole(b"evil"), Leave())
    ),
    "link-to-nul": lambda: as_agent(*inside(Symlink(0, b"l", b"a\0b"))),
    "endless-names": lambda: as_agent(*[Problem(b"\x1b" * 60_000, "\x1b" * 4_000)] * 200, End(0, 0)),
    "onto-link": lambda: as_agent(*inside(Symlink(0, b"l", b"../../outside/canary"), *whole(b"l"))),
    "hard-link-out": lambda: as_agent(*inside(Hardlink(b"h", b"../outside/canary"))),
    "hard-link-through-link": lambda: as_agent(
        *inside(Symlink(0, b"l", b"../../outside"), Hardlink(b"h", b"tree/l/canary"))
    ),
    "longer": lambda: as_agent(*inside(File(0o644, 0, 3, 0, b"f"), Chunk(b"four"), Sum(b""))),
    "shorter": lambda: as_agent(*inside(File(0o644, 0, 5, 0, b"f"), Chunk(b"four"), Sum(b""))),
    "wrong-sum": lambda: as_agent(*inside(File(0o644, 0, 4, 0, b"f"), Chunk(b"four"), Sum(b"x" * 32))),
    "huge-hole": lambda: as_agent(*inside(File(0o644, 0, 1 << 62, 0, b"f"), Hole(1 << 62), Sum(b""))),
    "hole-beyond-the-limit": lambda: as_agent(
        *inside(File(0o644, 0, 1 << 40, 0, b"f"), Hole(1 << 40), Sum(hashlib.sha256(b"hole %d" % (1 << 40)).digest()))
    ),
    "holes-of-nothing": lambda: as_agent(*inside(File(0o644, 0, 9, 0, b"f"), Hole(0), Hole(9), Sum(b""))),
    "same-without-an-offer": lambda: as_agent(*inside(*whole(b"f"), Same(0o666, 0, b"f"))),
    "negative": lambda: as_agent(*inside(File(0o644, 0, -1, 0, b"f"), Sum(b""))),
    "offset": lambda: as_agent(*inside(File(0o644, 0, 9, 5, b"f"), Chunk(b"four"), Sum(b""))),
    "early-end": lambda: as_agent(Enter(0o755, 0, b"tree"), File(0o644, 0, 9, 0, b"f"), Chunk(b"four"), End(1, 9)),
    "no-end": lambda: as_agent(Enter(0o755, 0, b"tree"), *whole(b"f"), Leave()),
    "lying-end": lambda: as_agent(*inside(*whole(b"f"))),
    "two-tops": lambda: as_agent(*whole(b"tree"), *whole(b"other"), End(2, 8)),
    "another-name": lambda: as_agent(*whole(b".bashrc"), End(1, 4)),
    "another-small-name": lambda: as_agent(small(b".bashrc"), End(1, 4)),
    "another-link": lambda: as_agent(Symlink(0, b".bashrc", b"/evil"), End(1, 0)),
    "another-directory": lambda: as_agent(Enter(0o755, 0, b".ssh"), small(b"rc"), Leave(), End(2, 4)),
    "contents": lambda: as_agent(Enter(0o755, 0, b"."), small(b".bashrc"), Leave(), End(2, 4)),
    "tar-another-name": lambda: as_tar((member(".bashrc", size=4), b"evil")),
    "out-of-order": lambda: as_agent(Chunk(b"x"), End(0, 0)),
    "wrong-way": lambda: as_agent(Done(1, 1), End(0, 0)),
    "garbage": garbage,
    "escapes": lambda: as_agent(Problem(b"\x1b]0;evil\x07", "\x1b[31mred"), End(0, 0)),
    "escapes-at-the-end": lambda: as_agent(Problem(b"", "\x1b]0;evil\x07red\nsshgate: all was copied.")),
    "endless": endless,
    "swarm": swarm,
    "noise": noise,
    "tar-parent": lambda: as_tar((member("../evil"), b"evil")),
    "tar-deep-parent": lambda: as_tar((member("tree/a/../../../evil"), b"evil")),
    "tar-absolute": lambda: as_tar((member("/tmp/sshgate-evil"), b"evil")),
    "tar-through-link": lambda: as_tar(
        (member("tree", tarfile.DIRTYPE), b""),
        (member("tree/l", tarfile.SYMTYPE, "../../outside"), b""),
        (member("tree/l/evil"), b"evil"),
    ),
    "tar-hard-link-out": lambda: as_tar((member("tree/h", tarfile.LNKTYPE, "../outside/canary"), b"")),
    "tar-cut": lambda: as_tar((member("tree/f"), b"x" * 5000), cut=3000),
    "tar-cut-after-a-file": lambda: as_tar((member("tree/f"), b"x" * 512), cut=1024),
    "tar-wrong-sum": lambda: as_tar((member("tree/f"), b"evil"), digest="0" * 64),
    "tar-failed": lambda: as_tar((member("tree/f"), b"evil"), status=2),
    "tar-lying-size": lambda: as_tar((member("tree/f", size=1 << 42), b"evil")),
    "tar-endless-header": endless_header,
    "tar-nested-headers": nested_headers,
    "tar-link-to-nul": lambda: as_tar((member("tree", tarfile.SYMTYPE, "a\0b" + "x" * 200), b"")),
    "tar-refused-without-end": lambda: before_tar(b"P" + b"x" * 200_000),
    "tar-refused-with-escapes": lambda: before_tar(b"P\x1b[31mred\ntree\0"),
    "tar-says-nothing": lambda: before_tar(b""),
}

if __name__ == "__main__":
    try:
        (SCENARIOS | TAKING)[sys.argv[1]]()
    except BrokenPipeError:
        pass
