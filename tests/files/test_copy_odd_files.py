"""``sshgate cp`` of whatever can be named: what `cat` gives, or an error; never success with something else."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.rig.copies import KINDS, Ended, Far, leftovers

MIB = 1 << 20
# Files of the kernel's: without a size, with one that is too large, and readable in one piece only.
UNSIZED = (
    "/proc/version", "/proc/filesystems", "/proc/devices", "/proc/sys/kernel/hostname", "/proc/sys/kernel/ostype",
    "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/block/../kernel/mm/transparent_hugepage/defrag",
)  # fmt: skip
# Their content is another each time, or for each process; this is what it begins with.
CHANGING = {
    "/proc/cpuinfo": b"processor", "/proc/self/status": b"Name:", "/proc/stat": b"cpu ", "/proc/kallsyms": b"",
    "/proc/mounts": b"", "/proc/self/exe": b"\x7fELF",
}  # fmt: skip
DEVICES = ("/dev/null", "/dev/zero", "/dev/random")
# What a process has open is no file, whatever its link says.
LINKS = ("/proc/self/ns/net", "/proc/self/cwd", "/proc/self/fd/1", "/proc/self/root")

Copy = Callable[[Sequence[str | Path], Path], Ended]


@pytest.fixture(params=[*KINDS, *(f"into {kind}" for kind in KINDS)])
def direction(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def tar_reads(direction: str) -> bool:
    """Whether it is tar that reads the files, which trusts the sizes that they report."""
    return direction in ("tar", "busybox")


@pytest.fixture
def copy(direction: str, tmp_path: Path) -> Copy:
    """Copies paths of this machine to another, out of a far end or into it: both are here."""
    inwards, _, kind = direction.rpartition(" ")
    far = Far(tmp_path / "far", kind)

    def out_of(sources: Sequence[str | Path], destination: Path) -> Ended:
        return far.cp(*(f"dev=work:{source}" for source in sources), str(destination))

    def into(sources: Sequence[str | Path], destination: Path) -> Ended:
        return far.cp(*map(str, sources), f"dev=work:{destination}")

    return into if inwards else out_of


@pytest.fixture
def land(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "land").mkdir()
    yield tmp_path / "land"
    assert leftovers(tmp_path / "land") == []


def check_none_copied(ended: Ended, sources: Iterable[str], land: Path) -> None:
    """The copy has failed, with a reason for each source, and nothing is there."""
    assert ended.status == 1
    for source in sources:
        assert f"{source}: is in /proc or /sys, where only Python in the sandbox can copy" in ended.err
    assert list(land.iterdir()) == []


def test_files_of_the_kernels_are_what_cat_gives(copy: Copy, land: Path, tar_reads: bool) -> None:
    sources = [source for source in UNSIZED if Path(source).exists()]
    ended = copy(sources, land)
    if tar_reads:
        check_none_copied(ended, sources, land)
        return
    assert (ended.status, ended.err) == (0, "")
    for source in sources:
        assert (land / Path(source).name).read_bytes() == subprocess.check_output(["cat", source]), source


def test_files_that_change_all_the_time_are_not_empty(copy: Copy, land: Path, tar_reads: bool) -> None:
    ended = copy(list(CHANGING), land)
    if tar_reads:
        # A link of /proc, such as exe, is refused as well.
        check_none_copied(ended, CHANGING, land)
        return
    assert (ended.status, ended.err) == (0, "")
    for source, beginning in CHANGING.items():
        content = (land / Path(source).name).read_bytes()
        assert content, source
        assert content.startswith(beginning), source


def test_what_is_no_file_is_an_error(copy: Copy, land: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        sources = [*DEVICES, *LINKS, str(tmp_path / "pipe"), str(tmp_path / "socket")]
        ended = copy(sources, land)
    assert ended.status == 1
    for source in sources:
        assert f"{Path(source).name}: " in ended.err
    assert list(land.iterdir()) == []


def test_one_that_is_no_file_is_an_error_on_its_own(copy: Copy, land: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        (tmp_path / "tree").mkdir()
        (tmp_path / "tree/file").write_text("file")
        os.link(tmp_path / "socket", tmp_path / "tree/socket")
        for source in (tmp_path / "socket", tmp_path / "tree"):
            ended = copy([str(source)], land)
            assert ended.status == 1
            assert "socket" in ended.err
    assert [str(path.relative_to(land)) for path in land.rglob("*")] == ["tree", "tree/file"]


def test_a_tree_of_the_kernels_has_every_content_or_says_which_not(copy: Copy, land: Path, tar_reads: bool) -> None:
    source = Path("/proc/sys/kernel/random")
    ended = copy([source], land)
    if tar_reads:
        check_none_copied(ended, [str(source)], land)
        return
    for path in source.iterdir():
        copied = land / "random" / path.name
        if ended.status == 0 or f"{path.name}: " not in ended.err:
            assert len(copied.read_bytes()) == len(path.read_bytes()) or path.name == "entropy_avail"
        else:
            assert not copied.exists()
    assert (land / "random/boot_id").read_bytes() == (source / "boot_id").read_bytes()


def test_a_tree_of_links_of_the_kernels_has_none_of_them(copy: Copy, land: Path) -> None:
    ended = copy(["/proc/self/ns"], land)
    assert ended.status == 1
    assert "net: is a link of the kernel" in ended.err or "/proc/self/ns: is in /proc or /sys" in ended.err
    assert [path for path in land.rglob("*") if path.name != "ns"] == []


def test_an_empty_file_is_none_of_that(copy: Copy, land: Path, tmp_path: Path) -> None:
    for name in ("empty", "tree/empty", "tree/sub/-empty 'too'"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("empty", "tree"):
        ended = copy([tmp_path / name], land)
        assert (ended.status, ended.err) == (0, "")
    assert sorted(str(path.relative_to(land)) for path in land.rglob("*") if path.is_file()) == [
        "empty", "tree/empty", "tree/sub/-empty 'too'"
    ]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("change", "whole"),
    [("printf more >>{}", True), (": >{}", False), ("truncate -s 3M {}", False), ("rm {}", True)],
    ids=["grows", "is emptied", "shrinks", "vanishes"],
)
def test_a_file_that_changes_meanwhile_is_whole_or_an_error(
    kind: str, change: str, whole: bool, tmp_path: Path, land: Path
) -> None:
    content = os.urandom(16 * MIB)
    source = tmp_path / "it"
    source.write_bytes(content)
    change = change.format(source)
    far = Far(
        tmp_path / "far", kind,
        f'/bin/sh -c "$last" | {{ PATH=$FULL; {{relay}} 2000000; {change}; exec cat; }}',
    )  # fmt: skip
    ended = far.cp(f"dev=work:{source}", str(land))
    if ended.status == 0:
        assert whole
        assert (land / "it").read_bytes() in (content, content + b"more")
    else:
        assert ended.status == 1
        assert ended.err
        # tar's own status comes after the file.
        assert not (land / "it").exists() or kind in ("tar", "busybox")


def test_what_vanishes_from_a_tree_is_named(tmp_path: Path, land: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/a").write_bytes(os.urandom(16 * MIB))
    (tmp_path / "tree/b").write_text("b")
    remove = f"rm {tmp_path}/tree/b"
    far = Far(
        tmp_path / "far", "python", f'/bin/sh -c "$last" | {{ PATH=$FULL; {{relay}} 2000000; {remove}; exec cat; }}'
    )
    ended = far.cp(f"dev=work:{tmp_path}/tree", str(land), "--json")
    assert ended.status == 1
    assert [Path(failure["path"]).name for failure in json.loads(ended.out)["failures"]] == ["b"]
    assert (land / "tree/a").stat().st_size == 16 * MIB


def test_a_log_that_is_written_all_the_time_is_copied_up_to_a_point(copy: Copy, land: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"")
    writing = subprocess.Popen(["sh", "-c", f"i=0; while :; do i=$((i+1)); echo line $i >>{log}; done"])
    try:
        time.sleep(0.1)
        for round_ in range(3):
            before = log.stat().st_size
            ended = copy([log], land / str(round_))
            if ended.status == 0:
                copied = (land / str(round_)).read_bytes()
                assert len(copied) >= before
                assert log.read_bytes().startswith(copied)
            else:
                assert "log" in ended.err or "changed" in ended.err or "changed" in ended.out
    finally:
        writing.kill()
        writing.wait()
