"""Whatever a sandbox sends: nothing lands outside the destination, fills the disk, or reads as success."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rig import evil_far_end
from tests.rig.copies import leftovers, picture

# In these a file arrives whole before the lie; it may stay.
WHOLE_BEFORE = {
    "no-end", "lying-end", "two-tops", "tar-cut-after-a-file", "tar-wrong-sum", "tar-failed", "small-swarm",
    "same-without-an-offer",
}  # fmt: skip


def copy(
    tmp_path: Path, scenario: str, *options: str, up: bool = False, to: str = "landing/tree"
) -> subprocess.CompletedProcess[bytes]:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/canary").write_text("canary")
    (tmp_path / "landing").mkdir()
    ssh = f"{sys.executable} {evil_far_end.__file__} {scenario}"
    paths = [str(tmp_path / "outside"), "u=n:tree"] if up else ["u=n:tree", str(tmp_path / to)]
    command = [sys.executable, "-m", "sshgate", "cp", "--ssh", ssh, *options, *paths]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.run(command, capture_output=True, timeout=50, check=False, cwd=root, env=environment)


@pytest.mark.parametrize("scenario", sorted(set(evil_far_end.SCENARIOS) - {"onto-link"}))
def test_no_lie_reads_as_success_or_leaves_the_destination(tmp_path: Path, scenario: str) -> None:
    before = picture(tmp_path)
    ended = copy(tmp_path, scenario, "--max-bytes", "20M", "--max-files", "300")
    assert ended.returncode == 1
    assert ended.stderr.startswith(b"sshgate: ")
    assert b"Traceback" not in ended.stderr
    assert b"\x1b" not in ended.stderr
    assert len(ended.stderr) < 8_000_000
    assert before == {}
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["canary"]
    assert (tmp_path / "outside/canary").read_text() == "canary"
    assert (tmp_path / "outside/canary").stat().st_nlink == 1
    assert not Path("/tmp/sshgate-evil").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["landing", "outside"]
    assert {path.name for path in (tmp_path / "landing").iterdir()} <= {"tree"}
    assert leftovers(tmp_path) == []
    files = [path for path in (tmp_path / "landing").rglob("*") if path.is_file() and not path.is_symlink()]
    assert files == [] or scenario in WHOLE_BEFORE
    assert sum(path.lstat().st_size for path in (tmp_path / "landing").rglob("*")) < 30_000_000


@pytest.mark.parametrize("scenario", [one for one in evil_far_end.SCENARIOS if "another" in one] + ["contents"])
def test_nothing_arrives_that_was_not_asked_for(tmp_path: Path, scenario: str) -> None:
    ended = copy(tmp_path, scenario, to="landing")
    assert ended.returncode == 1
    assert b"not asked for" in ended.stderr
    assert list((tmp_path / "landing").iterdir()) == []


@pytest.mark.parametrize("scenario", sorted(set(evil_far_end.TAKING)))
def test_what_takes_a_copy_and_lies_is_no_success_and_no_hang(tmp_path: Path, scenario: str) -> None:
    ended = copy(tmp_path, scenario, up=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith(b"sshgate: ")
    assert ended.stderr.count(b"\n") == 1
    assert b"\x1b" not in ended.stderr


def test_a_file_sent_onto_a_link_replaces_the_link(tmp_path: Path) -> None:
    copy(tmp_path, "onto-link")
    assert (tmp_path / "outside/canary").read_text() == "canary"
    assert not (tmp_path / "landing/tree/l").is_symlink()
    assert (tmp_path / "landing/tree/l").read_text() == "evil"


def test_set_user_id_does_not_leave_the_sandbox(tmp_path: Path) -> None:
    from tests.rig.copies import Far

    far = Far(tmp_path / "far", "python")
    (far.home / "program").write_text("x")
    (far.home / "program").chmod(0o6755)
    assert far.cp("u=n:program", str(tmp_path / "program")).status == 0
    assert (tmp_path / "program").stat().st_mode & 0o7777 == 0o755
