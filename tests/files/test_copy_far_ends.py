"""``sshgate cp`` with each kind of far end: Python, GNU tar, busybox, and one with none of them."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from tests.rig.copies import KINDS, Far, Seen, leftovers, nasty_tree, picture
from tests.rig.waiting import until


@pytest.fixture(params=list(KINDS))
def far(request: pytest.FixtureRequest, tmp_path: Path) -> Far:
    return Far(tmp_path / "far", request.param)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    nasty_tree(top)
    return top


def expected(far: Far, top: Path) -> dict[bytes, Seen]:
    """What must be the same. Busybox's tar makes links last: they and their directories lose their times."""
    seen = picture(top)
    if far.kind == "busybox":
        timeless = [path for path in seen if seen[path].kind == stat.S_IFLNK or path == b"sub"]
        seen |= {path: seen[path]._replace(mtime=0) for path in timeless}
    return seen


def test_a_nasty_tree_goes_up_and_comes_back_equal(far: Far, tree: Path, tmp_path: Path) -> None:
    up = far.cp(str(tree), "dev=work:there")
    assert (up.status, up.err) == (0, "")
    assert expected(far, far.home / "there") == expected(far, tree)
    down = far.cp("dev=work:there", str(tmp_path / "back"))
    assert (down.status, down.err) == (0, "")
    assert expected(far, tmp_path / "back") == expected(far, tree)
    assert leftovers(tmp_path) == []


def test_a_second_copy_changes_nothing(far: Far, tree: Path) -> None:
    for _ in range(2):
        assert far.cp(f"{tree}/.", "dev=work:there/").status == 0
    assert expected(far, far.home / "there") == expected(far, tree)


def test_hard_links_stay_links_and_holes_stay_holes(far: Far, tree: Path, tmp_path: Path) -> None:
    assert far.cp(str(tree), "dev=work:there").status == 0
    assert (far.home / "there/plain").samefile(far.home / "there/sub/linked")
    assert far.cp("dev=work:there", str(tmp_path / "back")).status == 0
    assert (tmp_path / "back/sparse").stat().st_blocks * 512 < 2_000_000
    assert (tmp_path / "back/plain").samefile(tmp_path / "back/sub/linked")


@pytest.mark.parametrize(
    ("option", "enough", "few"), [("--max-bytes", "4M", "2M"), ("--max-files", "4", "3")], ids=["bytes", "files"]
)
def test_a_copy_stops_at_its_limit_in_both_directions(
    far: Far, tmp_path: Path, option: str, enough: str, few: str
) -> None:
    for place in (tmp_path, far.home):
        (place / "from").mkdir()
        for name in "abc":
            (place / "from" / name).write_bytes(os.urandom(1_000_000))
    for source, there, new in (
        (str(tmp_path / "from"), "dev=work:", far.home),
        ("dev=work:from", f"{tmp_path}/", tmp_path),
    ):
        stopped = far.cp(source, f"{there}few", option, few)
        assert stopped.status == 1
        assert option in stopped.err
        assert stopped.err.count("\n") == 1
        assert len(list(new.glob("few/*"))) < 3
        until(lambda: not leftovers(tmp_path), 5, "the removal of what had not arrived whole")
        ended = far.cp(source, f"{there}enough", option, enough)
        assert (ended.status, ended.err) == (0, "")
        assert picture(new / "enough", times=False) == picture(
            tmp_path / "from" if new == far.home else far.home / "from", times=False
        )


def test_an_existing_directory_is_copied_into(far: Far, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    (far.home / "into").mkdir()
    assert far.cp(str(tmp_path / "a"), str(tmp_path / "b"), "dev=work:into").status == 0
    assert far.cp(str(tmp_path / "a"), "dev=work:into/c").status == 0
    assert {path.name: path.read_text() for path in (far.home / "into").iterdir()} == {"a": "a", "b": "b", "c": "a"}
    (tmp_path / "back").mkdir()
    assert far.cp("dev=work:into/a", "dev=work:into/b", str(tmp_path / "back")).status == 0
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == ["a", "b"]
    assert far.cp("dev=work:into/.", str(tmp_path / "contents")).status == 0
    assert sorted(path.name for path in (tmp_path / "contents").iterdir()) == ["a", "b", "c"]


def test_the_home_directory_is_copied_under_its_name_or_a_new_one(far: Far, tmp_path: Path) -> None:
    (far.home / "file").write_text("x")
    for source in ("~", "~/"):
        into, new = tmp_path / f"into{len(source)}", tmp_path / f"new{len(source)}"
        into.mkdir()
        for destination in (into, new):
            ended = far.cp(f"dev=work:{source}", str(destination))
            assert (ended.status, ended.err) == (0, "")
        assert [path.name for path in into.iterdir()] == [far.home.name]
        assert (into / far.home.name / "file").read_text() == (new / "file").read_text() == "x"
    assert far.cp("dev=work:~/.", str(tmp_path / "contents")).status == 0
    assert (tmp_path / "contents/file").read_text() == "x"


@pytest.mark.parametrize("name", [":", ":a", ".:a", "a:b"])
def test_a_colon_in_a_name_changes_nothing(far: Far, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("one")
    ended = far.cp(f"{tmp_path}/{name}", "dev=work:new")
    assert (ended.status, ended.err) == (0, "")
    assert (far.home / "new").read_text() == "one"


def test_a_directory_may_end_in_a_newline(far: Far, tmp_path: Path) -> None:
    for name in ("d", "d\n"):
        (far.home / name).mkdir()
        (far.home / name / "f").write_text(repr(name))
    ended = far.cp("dev=work:d\n/f", str(tmp_path / "back"))
    assert (ended.status, ended.err) == (0, "")
    assert (tmp_path / "back").read_text() == repr("d\n")


def test_a_new_directory_may_end_in_a_dot(far: Far, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_text("x")
    assert far.cp(f"{tmp_path}/source/.", "dev=work:release 1.").status == 0
    assert [path.name for path in far.home.iterdir()] == ["release 1."]
    assert far.cp("dev=work:release 1./.", f"{tmp_path}/back./.").status == 0
    assert (tmp_path / "back." / "file").read_text() == "x"


def test_what_a_link_leads_to_is_copied_with_its_hard_links(far: Far, tmp_path: Path) -> None:
    (far.home / "tree").mkdir()
    (far.home / "tree" / "a").write_text("x")
    (far.home / "tree" / "b").hardlink_to(far.home / "tree" / "a")
    (far.home / "link").symlink_to("tree")
    ended = far.cp("dev=work:link/", str(tmp_path / "back"))
    assert (ended.status, ended.err) == (0, "")
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == ["a", "b"]


def test_the_parent_of_a_link_is_that_of_what_it_leads_to(far: Far, tmp_path: Path) -> None:
    """As the kernel and cp resolve it; a shell's `cd` would go back to the link's own directory."""
    (far.home / "a/b").mkdir(parents=True)
    (far.home / "link").symlink_to("a/b")
    (far.home / "a/file").write_text("right")
    (far.home / "file").write_text("wrong")
    assert far.cp("dev=work:link/../file", str(tmp_path / "file")).status == 0
    assert (tmp_path / "file").read_text() == "right"
    assert far.cp(str(tmp_path / "file"), "dev=work:link/../new").status == 0
    assert (far.home / "a/new").read_text() == "right"


def test_one_missing_source_does_not_keep_the_others(far: Far, tmp_path: Path) -> None:
    (far.home / "there").write_text("there")
    (tmp_path / "back").mkdir()
    ended = far.cp("dev=work:nothing", "dev=work:no/where", "dev=work:there", str(tmp_path / "back"))
    assert ended.status == 1
    assert "nothing: no such file or directory" in ended.err
    assert "no/where: no such " in ended.err
    assert [path.name for path in (tmp_path / "back").iterdir()] == ["there"]


def test_two_sources_of_one_name_are_not_put_over_each_other(far: Far, tmp_path: Path) -> None:
    for directory in (far.home, tmp_path):
        for name in ("one", "two"):
            (directory / name).mkdir()
            (directory / name / "same").write_text(name)
    for sources, destination, landed in (
        (("dev=work:one/same", "dev=work:two/same"), str(tmp_path), tmp_path),
        ((f"{tmp_path}/one/same", f"{tmp_path}/two/same"), "dev=work:.", far.home),
    ):
        ended = far.cp(*sources, destination)
        assert ended.status == 1
        assert "two/same: has the same name as an earlier source" in ended.err
        assert (landed / "same").read_text() == "one"


def test_a_missing_source_and_a_missing_parent_are_named(far: Far, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    ended = far.cp(str(tmp_path / "a"), "dev=work:no/such/place")
    assert ended.status == 1
    assert "no/such" in ended.err
    ended = far.cp("dev=work:nothing", str(tmp_path / "b"))
    assert ended.status == 1
    assert "nothing" in ended.err
    assert not (tmp_path / "b").exists()


def test_special_files_are_named_and_left_out(far: Far, tmp_path: Path) -> None:
    for top in (tmp_path / "up", far.home / "down"):
        top.mkdir()
        (top / "file").write_text("file")
        os.mkfifo(top / "pipe")
    for arguments, landed in (
        ((str(tmp_path / "up"), "dev=work:."), far.home / "up"),
        (("dev=work:down", str(tmp_path)), tmp_path / "down"),
    ):
        ended = far.cp(*arguments)
        assert ended.status == 1
        assert "pipe: is a FIFO" in ended.err
        assert [path.name for path in landed.iterdir()] == ["file"]


def test_directories_do_not_replace_files_nor_files_directories(far: Far, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x/y").write_text("new")
    (far.home / "x").write_text("old")
    ended = far.cp(str(tmp_path / "x"), "dev=work:.")
    assert ended.status == 1
    assert "x: a directory cannot replace what has this name" in ended.err
    assert (far.home / "x").read_text() == "old"
    (far.home / "z/y").mkdir(parents=True)
    ended = far.cp(str(tmp_path / "x/y"), "dev=work:z")
    assert ended.status == 1
    assert "a file cannot replace the directory of this name" in ended.err


def test_a_link_at_the_destination_is_replaced_not_followed(far: Far, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "x").mkdir()
    (tmp_path / "x/name").write_text("new")
    (far.home / "x").mkdir()
    (far.home / "x/name").symlink_to(outside)
    assert far.cp(str(tmp_path / "x"), "dev=work:.").status == 0
    assert (far.home / "x/name").read_text() == "new"
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("kind", list(KINDS))
# What is left out is more than the pipe can hold that the far end asks for, so that it notices.
@pytest.mark.parametrize("share", [0.05, 0.5, 0.7])
def test_a_cut_stream_is_never_success_and_leaves_nothing(tmp_path: Path, kind: str, share: float) -> None:
    size = 6_000_000
    source = tmp_path / "source"
    source.write_bytes(os.urandom(size))
    kept = int(size * share)
    up = Far(tmp_path / "up", kind, f'{{relay}} {kept} | /bin/sh -c "$LAST"')
    ended = up.cp(str(source), "dev=work:file")
    assert ended.status == 1
    assert "sshgate: " in ended.err
    assert list(up.home.iterdir()) == []
    down = Far(tmp_path / "down", kind, f'/bin/sh -c "$LAST" | {{relay}} {kept}')
    (down.home / "file").write_bytes(source.read_bytes())
    landed = tmp_path / "landed"
    landed.mkdir()
    ended = down.cp("dev=work:file", str(landed / "file"))
    assert ended.status == 1
    assert "sshgate: " in ended.err
    assert list(landed.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing_on_either_side(far: Far, tmp_path: Path, number: int) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(4_000_000))
    hung = tmp_path / "hung"
    slow = Far(tmp_path / "far", far.kind, f'{{relay}} 3000000 {hung} | /bin/sh -c "$LAST"')
    copy = subprocess.Popen(slow.argv(str(source), "dev=work:file"), stderr=subprocess.PIPE)
    until(hung.exists, 20)
    try:
        until(lambda: bool(leftovers(slow.home)), 20)
        os.kill(copy.pid, number)
        _, err = copy.communicate(timeout=20)
    finally:
        copy.kill()
        os.kill(int(hung.read_text()), signal.SIGKILL)  # now the far end sees that nobody is there
    assert copy.returncode == 128 + number
    assert b"interrupted" in err
    until(lambda: list(slow.home.iterdir()) == [], 20)


def test_resume_sends_only_what_is_missing(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(20_000_000))
    os.utime(source, ns=(0, 10**18))
    count = tmp_path / "count"
    cut = Far(tmp_path / "far", "python", '{relay} 15000000 | /bin/sh -c "$LAST"')
    assert cut.cp("--resume", str(source), "dev=work:file").status == 1
    assert not (cut.home / "file").exists()
    counting = f'PATH=$FULL tee {count} | /bin/sh -c "$LAST"'
    again = Far(tmp_path / "far", "python", counting)
    assert again.cp("--resume", str(source), "dev=work:file").status == 0
    assert count.stat().st_size < 8_000_000
    assert (again.home / "file").read_bytes() == source.read_bytes()
    assert leftovers(again.home) == []
    third = again.cp("--resume", "--json", str(source), "dev=work:file")
    assert json.loads(third.out)["ok"]
    assert count.stat().st_size < 100_000


def test_resume_starts_again_when_the_beginning_differs(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(5_000_000))
    cut = Far(tmp_path / "far", "python", '{relay} 3000000 | /bin/sh -c "$LAST"')
    assert cut.cp("--resume", str(source), "dev=work:file").status == 1
    source.write_bytes(os.urandom(5_000_000))
    whole = Far(tmp_path / "far", "python")
    assert whole.cp("--resume", str(source), "dev=work:file").status == 0
    assert (whole.home / "file").read_bytes() == source.read_bytes()


def test_resume_works_out_of_the_sandbox_too(tmp_path: Path) -> None:
    cut = Far(tmp_path / "far", "python", '/bin/sh -c "$LAST" | {relay} 6000000')
    (cut.home / "file").write_bytes(os.urandom(9_000_000))
    landed = tmp_path / "landed"
    landed.mkdir()
    assert cut.cp("--resume", "dev=work:file", str(landed)).status == 1
    assert not (landed / "file").exists()
    whole = Far(tmp_path / "far", "python")
    assert whole.cp("--resume", "dev=work:file", str(landed)).status == 0
    assert (landed / "file").read_bytes() == (cut.home / "file").read_bytes()
    assert leftovers(landed) == []


def test_more_than_8_gib_and_mostly_hole(tmp_path: Path) -> None:
    for kind in ("python", "tar"):
        far = Far(tmp_path / kind, kind)
        with (far.home / "huge").open("wb") as file:
            file.seek(9 << 30)
            file.write(b"end")
        ended = far.cp("dev=work:huge", str(tmp_path / kind / "back"), seconds=100)
        assert (ended.status, ended.err) == (0, "")
        back = tmp_path / kind / "back"
        assert back.stat().st_size == (9 << 30) + 3
        assert back.stat().st_blocks * 512 < 1_000_000
        with back.open("rb") as file:
            file.seek(9 << 30)
            assert file.read() == b"end"


def test_a_tree_deeper_than_any_path_may_be_long(tmp_path: Path) -> None:
    far = Far(tmp_path / "far", "python")
    name = "d" * 50
    fd = os.open(tmp_path, os.O_RDONLY)
    for level in ["top"] + [name] * 150:
        os.mkdir(level, dir_fd=fd)
        deeper = os.open(level, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    assert far.cp(str(tmp_path / "top"), "dev=work:there").status == 0
    ended = far.cp("--json", "dev=work:there", str(tmp_path / "back"))
    assert json.loads(ended.out)["entries"] == 152


def test_what_the_far_end_lacks_is_named(tmp_path: Path) -> None:
    far = Far(tmp_path / "far", "")
    (tmp_path / "x").write_text("x")
    (far.home / "x").write_text("x")
    for arguments in ((str(tmp_path / "x"), "dev=work:y"), ("dev=work:x", str(tmp_path / "y"))):
        ended = far.cp(*arguments)
        assert ended.status == 1
        assert ended.err == (
            "sshgate: the sandbox has neither Python 3.8 nor tar: add one of them to its image; nothing was copied.\n"
        )
    tar = Far(tmp_path / "far", "tar chmod mkdir mv rm stat tee touch xargs")
    assert tar.cp(str(tmp_path / "x"), "dev=work:y").err == (
        "sshgate: the sandbox has no Python 3.8, and a copy by tar needs cat, sha256sum as well: add these or Python "
        "to its image; nothing was copied.\n"
    )
    assert not (tmp_path / "y").exists()
    assert sorted(path.name for path in far.home.iterdir()) == ["x"]
    none = Far(tmp_path / "far", "", "exit 127")
    assert "no /bin/sh" in none.cp(str(tmp_path / "x"), "dev=work:x").err
    broken = Far(tmp_path / "far", "", "echo 'no route to host' >&2; exit 255")
    ended = broken.cp(str(tmp_path / "x"), "dev=work:x")
    assert ended.status == 1
    assert "no route to host" in ended.err


def test_a_greeting_before_the_copy_does_no_harm(tmp_path: Path) -> None:
    far = Far(tmp_path / "far", "python", 'echo welcome; exec /bin/sh -c "$LAST"')
    (tmp_path / "x").write_text("x")
    assert far.cp(str(tmp_path / "x"), "dev=work:y").status == 0
    assert (far.home / "y").read_text() == "x"


def test_mistakes_on_the_command_line_are_2(tmp_path: Path) -> None:
    far = Far(tmp_path / "far", "python")
    for arguments in (
        ["a", "b"],
        ["x:a", "y:b"],
        ["x:a", "y:b", "."],
        ["a", "x:b", "."],
        ["a"],
        ["a", "x:b", "--max-bytes", "no"],
    ):
        assert far.cp(*arguments).status == 2


def test_a_terminal_sees_how_far_how_fast_and_how_long_still(tmp_path: Path) -> None:
    far = Far(tmp_path / "far", "python")
    source = tmp_path / "source"
    source.write_bytes(bytes(30_000_000))
    mine, theirs = pty.openpty()
    with subprocess.Popen(
        far.argv(str(source), "dev=work:file"), stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    ) as copy:
        os.close(theirs)
        seen = b""
        try:
            while data := os.read(mine, 65_536):
                seen += data
        except OSError:  # the other side is closed
            pass
        assert copy.wait(30) == 0
    os.close(mine)
    text = seen.decode()
    assert "source" in text
    assert re.search(r"\d+\.\d/\d+\.\d MiB", text), text
    assert re.search(r"\d+:\d\d:\d\d|-:--:--", text), text
