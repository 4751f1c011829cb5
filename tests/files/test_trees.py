"""A tree of nasty names and kinds goes up and comes back, by each tool that people have."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.files.conftest import Worker, run
from tests.rig.copies import Seen, nasty_tree, picture


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    nasty_tree(top)
    return top


@pytest.fixture
def there(work: Worker) -> Iterator[str]:
    """A place in the sandbox that nothing else uses; gone afterwards, also what may not be written."""
    place = f"/tmp/there-{os.urandom(4).hex()}"
    yield place
    work.run(f"chmod -R u+rwx {place} 2>/dev/null; rm -rf {place}" if work.kind != "busybox" else "true")


def without_links(top: Path) -> dict[bytes, Seen]:
    """Files and directories: sftp and scp keep no symbolic links."""
    return {path: seen for path, seen in picture(top).items() if seen.kind != stat.S_IFLNK}


def drop_links(top: Path) -> None:
    for path in top.rglob("*"):
        if path.is_symlink():
            status = path.parent.stat()
            path.unlink()
            os.utime(path.parent, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_by_sshgate_cp(work: Worker, tree: Path, there: str, tmp_path: Path) -> None:
    assert work.cp(str(tree), f"dev@127.0.0.1:{there}") == (0, "")
    assert work.cp(f"dev@127.0.0.1:{there}", str(tmp_path / "back")) == (0, "")
    expected, got = picture(tree), picture(tmp_path / "back")
    if work.kind == "busybox":  # its tar makes links last, and so touches them and their directories again
        timeless = [path for path in expected if expected[path].kind == stat.S_IFLNK or path == b"sub"]
        expected |= {path: expected[path]._replace(mtime=0) for path in timeless}
        got |= {path: got[path]._replace(mtime=0) for path in timeless}
    assert got == expected


def test_by_sftp(work: Worker, tree: Path, there: str, tmp_path: Path) -> None:
    drop_links(tree)
    up = work.sftp(f"put -Rp {tree} {there}")
    assert up.status == 0, up
    down = work.sftp(f"get -Rp {there} {tmp_path}/back")
    assert down.status == 0, down
    assert without_links(tmp_path / "back") == without_links(tree)


def test_by_scp(work: Worker, tree: Path, there: str, tmp_path: Path) -> None:
    drop_links(tree)
    up = work.scp("-rp", str(tree), f"dev@127.0.0.1:{there}")
    assert up.status == 0, up
    down = work.scp("-rp", f"dev@127.0.0.1:{there}", str(tmp_path / "back"))
    assert down.status == 0, down
    assert without_links(tmp_path / "back") == without_links(tree)


def test_by_the_old_scp(full: Worker, tree: Path, tmp_path: Path) -> None:
    """``scp -O``: the sandbox's own scp. A name with a newline ends its protocol, also between two OpenSSH hosts."""
    drop_links(tree)
    (tree / "new\nline").unlink()
    up = full.scp("-O", "-rp", str(tree), "dev@127.0.0.1:/tmp/old-scp")
    assert up.status == 0, up
    down = full.scp("-O", "-rp", "dev@127.0.0.1:/tmp/old-scp", str(tmp_path / "back"))
    assert down.status == 0, down
    assert without_links(tmp_path / "back") == without_links(tree)


def test_by_rsync_and_the_second_run_is_empty(full: Worker, tree: Path, tmp_path: Path) -> None:
    there = "dev@127.0.0.1:/tmp/rsynced/"
    command = ["rsync", "-aHS", "-e", full.shell()]
    up = run([*command, f"{tree}/", there])
    assert up.status == 0, up
    again = run([*command, "--itemize-changes", f"{tree}/", there])
    assert (again.status, again.out) == (0, b"")
    down = run([*command, there, f"{tmp_path}/back/"])
    assert down.status == 0, down
    assert picture(tmp_path / "back") == picture(tree)
    assert (tmp_path / "back/plain").samefile(tmp_path / "back/sub/linked")
    again = run([*command, "--itemize-changes", there, f"{tmp_path}/back/"])
    assert (again.status, again.out) == (0, b"")


def test_by_a_tar_pipe(full: Worker, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "back").mkdir()
    far = "mkdir /tmp/piped && tar -xpf - -C /tmp/piped && tar -cf - -C /tmp/piped ."
    script = f"tar -cf - -C '{tree}' . | {full.shell()} dev@127.0.0.1 '{far}' | tar -xpf - -C '{tmp_path}/back'"
    ended = run(["bash", "-o", "pipefail", "-c", script])
    assert (ended.status, ended.both) == (0, "")
    assert picture(tmp_path / "back") == picture(tree)
