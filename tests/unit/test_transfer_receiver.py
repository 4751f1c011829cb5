"""What is at the destination already, and whose it is: the receiving end of a copy, record by record."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sshgate.transfer.destination import WriteOptions
from sshgate.transfer.partial_file import Stopped
from sshgate.transfer.receiver import Receiver
from sshgate.transfer.records import (  # fmt: skip
    Chunk,
    End,
    Enter,
    File,
    Hardlink,
    Have,
    Hole,
    Leave,
    Offer,
    ProtocolError,
    Record,
    Same,
    Sum,
    Whole,
)

SIZE = 2 << 20
PART = b".sshgate-" + hashlib.sha256(b"file").hexdigest()[:16].encode() + b".part"
NOBODY = 65534


class ReceiverUnderTest:
    """A landing in ``place``, and what it could not put in place."""

    def __init__(self, place: Path, *, resume: bool = False) -> None:
        self.failures: list[tuple[bytes, str]] = []
        self.receiver = Receiver(
            WriteOptions(os.fsencode(place) + b"/", resume=resume),
            lambda path, why: self.failures.append((path, why)),
            lambda: os.urandom(8).hex(),
        )

    def take(self, *records: Record) -> Record | None:
        """The last answer."""
        answer = None
        for record in records:
            answer = self.receiver.apply(record)
        return answer


def chunks(content: bytes) -> list[Record]:
    return [Chunk(content[at : at + (1 << 18)]) for at in range(0, len(content), 1 << 18)]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The destination, with the first half of a file that an earlier try has left."""
    (tmp_path / "there").mkdir()
    part = tmp_path / "there" / os.fsdecode(PART)
    part.write_bytes(bytes(SIZE // 2))
    part.chmod(0o600)
    return tmp_path / "there"


@pytest.fixture
def resuming(place: Path) -> Iterator[ReceiverUnderTest]:
    receiver = ReceiverUnderTest(place, resume=True)
    yield receiver
    receiver.receiver.close()


def test_a_part_of_ours_is_gone_on_with(resuming: ReceiverUnderTest) -> None:
    half = hashlib.sha256(bytes(SIZE // 2)).digest()
    assert resuming.take(Offer(SIZE, b"file")) == Have(SIZE // 2, 0, half)


def test_a_part_with_another_name_elsewhere_is_made_anew(
    resuming: ReceiverUnderTest, place: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    os.link(place / os.fsdecode(PART), elsewhere)
    assert resuming.take(Offer(SIZE, b"file")) == Have(0, 0, b"")
    content = os.urandom(SIZE)
    resuming.take(File(0o644, 0, SIZE, 0, b"file"))
    for at in range(0, SIZE, 1 << 18):
        resuming.take(Chunk(content[at : at + (1 << 18)]))
    resuming.take(Sum(hashlib.sha256(content).digest()))
    assert (place / "file").read_bytes() == content
    assert elsewhere.read_bytes() == bytes(SIZE // 2)


def test_a_part_that_is_a_link_is_not_followed(resuming: ReceiverUnderTest, place: Path, tmp_path: Path) -> None:
    (place / os.fsdecode(PART)).rename(tmp_path / "elsewhere")
    (place / os.fsdecode(PART)).symlink_to(tmp_path / "elsewhere")
    assert resuming.take(Offer(SIZE, b"file")) == Have(0, 0, b"")


def test_a_part_that_others_may_write_is_made_anew(resuming: ReceiverUnderTest, place: Path) -> None:
    """Who has it open would change it after its checksum was found right."""
    (place / os.fsdecode(PART)).chmod(0o666)
    assert resuming.take(Offer(SIZE, b"file")) == Have(0, 0, b"")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_part_of_somebody_else_is_made_anew(resuming: ReceiverUnderTest, place: Path) -> None:
    os.chown(place / os.fsdecode(PART), NOBODY, NOBODY)
    assert resuming.take(Offer(SIZE, b"file")) == Have(0, 0, b"")


def test_a_part_longer_than_the_file_is_not_even_read(resuming: ReceiverUnderTest, place: Path) -> None:
    """Sixteen terabytes of a hole take hours."""
    os.truncate(place / os.fsdecode(PART), 1 << 43)
    assert resuming.take(Offer(SIZE, b"file")) == Have(0, 0, b"")


@pytest.mark.parametrize("offers", [False, True])
def test_two_copies_of_one_name_never_write_one_file(place: Path, offers: bool) -> None:
    """Each verifies only what it has written: a file put together by both would have the right checksum."""
    contents = [os.urandom(SIZE), os.urandom(SIZE)]
    half = SIZE // 2
    one, two = ReceiverUnderTest(place, resume=True), ReceiverUnderTest(place, resume=True)
    try:
        for receiver, content in ((one, contents[0]), (two, contents[1])):
            if offers:
                receiver.take(Offer(SIZE, b"file"))
            receiver.take(File(0o644, 0, SIZE, 0, b"file"), *chunks(content[:half]))
        for receiver, content in ((one, contents[0]), (two, contents[1])):
            receiver.take(*chunks(content[half:]), Sum(hashlib.sha256(content).digest()))
            assert (place / "file").read_bytes() == contents[0]
    finally:
        one.receiver.close()
        two.receiver.close()
    assert not one.failures
    assert [why for _, why in two.failures] == ["is being written by another copy; try again when that has ended"]
    assert [path.name for path in place.iterdir()] == ["file"]


def test_a_part_that_another_copy_still_writes_is_not_gone_on_with(place: Path) -> None:
    content = bytes(SIZE)
    one, two = ReceiverUnderTest(place, resume=True), ReceiverUnderTest(place, resume=True)
    try:
        assert one.take(Offer(SIZE, b"file")) == Have(SIZE // 2, 0, hashlib.sha256(bytes(SIZE // 2)).digest())
        assert two.take(Offer(SIZE, b"file")) == Have(0, 0, b"")
        one.take(File(0o644, 0, SIZE, SIZE // 2, b"file"), *chunks(content[SIZE // 2 :]))
        one.take(Sum(hashlib.sha256(content).digest()))
        assert (place / "file").read_bytes() == content
        assert two.take(Offer(SIZE, b"file")) == Have(SIZE, 1, hashlib.sha256(content).digest())
    finally:
        one.receiver.close()
        two.receiver.close()


def test_what_is_read_to_compare_has_a_limit(resuming: ReceiverUnderTest, place: Path) -> None:
    os.truncate(place / os.fsdecode(PART), 1 << 43)
    with pytest.raises(Stopped, match="larger than this disk"):
        resuming.take(Offer(1 << 44, b"file"))


def test_holes_larger_than_the_disk_are_refused(place: Path) -> None:
    receiver = ReceiverUnderTest(place)
    with pytest.raises(Stopped, match="larger than this disk"):
        receiver.take(File(0o644, 0, 1 << 44, 0, b"file"), Hole(1 << 44))
    receiver.receiver.close()
    assert [path.name for path in place.iterdir()] == [os.fsdecode(PART)]


def test_only_the_file_that_was_compared_gets_another_mode(resuming: ReceiverUnderTest, place: Path) -> None:
    for name in ("file", "key"):
        (place / name).write_bytes(bytes(SIZE))
        (place / name).chmod(0o600)
    resuming.take(Offer(SIZE, b"file"), Same(0o644, 0, b"file"))
    assert (place / "file").stat().st_mode & 0o777 == 0o644
    resuming.take(Offer(SIZE, b"file"))
    with pytest.raises(Stopped):
        resuming.take(Same(0o666, 0, b"key"))
    assert (place / "key").stat().st_mode & 0o777 == 0o600


def test_without_resuming_nothing_is_compared(place: Path) -> None:
    """The sandbox would learn the checksums of files here."""
    (place / "file").write_bytes(bytes(SIZE))
    receiver = ReceiverUnderTest(place)
    with pytest.raises(ProtocolError):
        receiver.take(Offer(SIZE, b"file"))
    receiver.receiver.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else for a moment")
def test_a_directory_of_somebody_else_keeps_its_mode_and_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "shared").mkdir()
    (place / "shared").chmod(0o777)
    place.chmod(0o777)
    monkeypatch.chdir(place)
    receiver = ReceiverUnderTest(Path())
    os.seteuid(NOBODY)
    try:
        content = b"content"
        receiver.take(Enter(0o700, 0, b"shared"), File(0o644, 0, len(content), 0, b"file"), Chunk(content))
        receiver.take(Sum(hashlib.sha256(content).digest()), Leave(), End(2, len(content)))
    finally:
        os.seteuid(0)
        receiver.receiver.close()
    assert receiver.failures == [(b"./shared", "its mode and time cannot be set: operation not permitted")]
    assert (place / "shared" / "file").read_bytes() == content
    assert (place / "shared").stat().st_mode & 0o777 == 0o777


def small(name: bytes, content: bytes = b"it", digest: bytes = b"") -> Whole:
    return Whole(0o644, 0, name, content, digest or hashlib.sha256(content).digest())


@pytest.mark.parametrize("new", [False, True])
def test_a_small_file_with_a_wrong_checksum_leaves_nothing(tmp_path: Path, new: bool) -> None:
    if not new:
        (tmp_path / "dir").mkdir()
    receiver = ReceiverUnderTest(tmp_path)
    receiver.take(Enter(0o755, 0, b"dir"), small(b"bad", digest=bytes(32)), small(b"good"), Leave())
    receiver.receiver.close()
    assert [(Path(os.fsdecode(path)).name, why) for path, why in receiver.failures] == [
        ("bad", "arrived with a wrong checksum")
    ]
    assert [entry.name for entry in (tmp_path / "dir").iterdir()] == ["good"]


def test_a_small_file_replaces_files_and_links_and_nothing_else(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("fifo")
    (tmp_path / "file").write_text("old")
    receiver = ReceiverUnderTest(tmp_path)
    receiver.take(*map(small, [b"fifo", b"directory", b"link", b"file"]))
    receiver.take(Enter(0o755, 0, b"new"), Enter(0o755, 0, b"directory"), Leave(), small(b"directory"), Leave())
    receiver.receiver.close()
    failed = [os.fsdecode(path).removeprefix(f"{tmp_path}/") for path, _ in receiver.failures]
    assert failed == ["fifo", "directory", "new/directory"]
    assert (tmp_path / "fifo").is_fifo()
    assert (tmp_path / "new" / "directory").is_dir()
    assert [(tmp_path / name).read_text() for name in ("link", "file")] == ["it", "it"]
    assert not list(tmp_path.rglob(".sshgate-*"))


def test_what_is_there_already_is_linked_only_under_names_that_were_asked_for(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "tree").mkdir()
    writing = WriteOptions(os.fsencode(tmp_path), names=frozenset({b"tree", b"one"}))
    receiver = Receiver(writing, lambda path, why: None, lambda: os.urandom(8).hex())
    try:
        for record in (small(b"one"), Enter(0o755, 0, b"tree"), Hardlink(b"two", b"one")):
            receiver.apply(record)
        with pytest.raises(ProtocolError, match="not asked for"):
            receiver.apply(Hardlink(b"three", b"secret"))
    finally:
        receiver.close()
    assert sorted(path.name for path in (tmp_path / "tree").iterdir()) == ["two"]
