"""Lists of directories: what a sandbox says is read within bounds, and names may hold what they like."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from webshim import directories

MARK = "0123456789abcdef" * 2
SHELLS = [shell for shell in (["dash"], ["bash"], ["busybox", "sh"]) if shutil.which(shell[0])]


def listed(place: Path, start: int = 0, shell: list[str] = SHELLS[0], most: int = directories.PAGE) -> dict[str, Any]:
    script = f"p={place}\nf={start}\nn={most}\nm={MARK}\n" + directories.LIST
    ended = subprocess.run([*shell, "-c", script], capture_output=True, check=True)
    return directories.parse(ended.stdout, MARK)


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_names_kinds_sizes_and_modes(tmp_path: Path, shell: list[str]) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "file").chmod(0o640)
    for name in ("-n", "a\nb", " $(x) '\"", "*", ".hidden", "..more", "$m"):
        (tmp_path / name).touch()
    (tmp_path / "directory").mkdir()
    (tmp_path / "broken").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / os.fsdecode(b"\xff")).touch()
    found = listed(tmp_path, shell=shell)
    assert found["path"] == str(tmp_path)
    assert found["total"] == len(found["entries"]) == 12
    by_name = {one["name"]: one for one in found["entries"]}
    assert set(by_name) == {
        "file", "-n", "a\nb", " $(x) '\"", "*", ".hidden", "..more", "$m", "directory", "broken", "pipe", "\ufffd"
    }  # fmt: skip
    file = by_name["file"]
    assert (file["kind"], file["size"], file["mode"], file["text"]) == ("file", 5, "640", True)
    assert (by_name["directory"]["kind"], by_name["broken"]["kind"], by_name["pipe"]["kind"]) == (
        "directory", "link", "other"
    )  # fmt: skip
    assert not by_name["\ufffd"]["text"]


def test_nothing_is_text_where_the_path_is_none(tmp_path: Path) -> None:
    """What is replaced in it makes the path of another directory, which may be there."""
    for place in (os.fsdecode(b"\xff"), "\ufffd"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "one").touch()
    odd, other = listed(tmp_path / os.fsdecode(b"\xff")), listed(tmp_path / "\ufffd")
    assert odd["path"] == other["path"]
    assert [one["name"] for one in odd["entries"]] == [one["name"] for one in other["entries"]] == ["one"]
    assert [one["text"] for one in odd["entries"] + other["entries"]] == [False, True]


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_a_directory_comes_in_parts(tmp_path: Path, shell: list[str]) -> None:
    assert listed(tmp_path, shell=shell)["entries"] == []
    for number in range(25):
        (tmp_path / f"{number:02}").touch()
    parts = [listed(tmp_path, start, shell, 10) for start in (0, 10, 20, 25, 1000)]
    assert [[one["name"] for one in part["entries"]] for part in parts] == [
        [f"{number:02}" for number in range(start, min(start + 10, 25))] for start in (0, 10, 20, 25, 1000)
    ]
    assert {part["total"] for part in parts} == {25}


@pytest.mark.parametrize(
    "output",
    [
        b"", b"nonsense\n", b"1\n/tmp\n", b"x\n/tmp\n" + MARK.encode(), b"1\nrelative\n" + MARK.encode(),
        b"9" * 30 + b"\n/\n" + MARK.encode(), b"1\n/\n" + MARK.encode() + b"\n" + MARK.encode() + b" zz 1 1 name\n",
        b"1\n/\n" + MARK.encode() + b"\n" + MARK.encode() + b" 81a4 " + b"9" * 40 + b" 1 name\n",
    ],
)  # fmt: skip
def test_nonsense_is_no_list(output: bytes) -> None:
    with pytest.raises(directories.Nonsense):
        directories.parse(output, MARK)


def test_more_entries_than_were_requested_are_dropped() -> None:
    one = MARK.encode() + b" 81a4 1 1 name\n"
    found = directories.parse(b"1\n/\n" + MARK.encode() + b"\n" + one * 2000, MARK)
    assert len(found["entries"]) == directories.PAGE


def test_a_time_that_is_far_away_is_no_nonsense() -> None:
    one = MARK.encode() + b" 81a4 1 -9223372036854775808 name\n"
    found = directories.parse(b"1\n/\n" + MARK.encode() + b"\n" + one, MARK)
    assert found["entries"][0]["mtime"] == -(2**63)
