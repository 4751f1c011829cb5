"""Changes of a sandbox's files: nothing is replaced, no link is followed, and names may hold what they like."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from webshim.fileprograms import DELETE, MAKE, REFUSALS, RENAME, program

# A name with a line end, words of a shell, a dash, markup, a way out, or only dots.
HOSTILE = [
    "a\nb",
    "\n",
    "$(touch x)`touch x` '\"",
    "-rf",
    "--",
    "*",
    "<b>",
    " ",
    "~",
    "...",
    "\u202etxt.exe",
    "\\",
    "é" * 127,
]
Run = Callable[..., int]


def names(place: Path) -> list[str]:
    return sorted(one.name for one in place.iterdir())


def variables_and_script(script: str, p: str, q: str = "", **words: str) -> str:
    """What the shell of the sandbox is given."""
    command = program(script, {"p": p, "q": q}, {"s": "self", "k": "", **words}).command
    return shlex.split(command.decode())[-1]


@pytest.fixture(params=["dash", "bash", "busybox", "without -T"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Run:
    """Runs a script in an empty directory and returns its exit status; with the programs of Debian or of busybox."""
    programs = tmp_path_factory.mktemp("programs")
    path = os.defpath
    shell = request.param
    if shell == "busybox":
        if shutil.which("busybox") is None:
            pytest.skip("no busybox on this machine")
        subprocess.run(["busybox", "--install", "-s", programs], check=True)
        shell, path = str(programs / "sh"), str(programs)
    elif shell == "without -T":
        (programs / "mv").write_text(
            '#!/bin/sh\ncase $1 in -*T*) echo "no such option" >&2; exit 1;; esac\nexec /bin/mv "$@"\n'
        )
        (programs / "mv").chmod(0o755)
        shell, path = "dash", f"{programs}:{path}"

    def run(script: str, p: str, q: str = "", **words: str) -> int:
        text = variables_and_script(script, p, q, **words)
        return subprocess.run([shell, "-c", text], cwd=tmp_path, env={"PATH": path, "HOME": str(tmp_path)}).returncode

    return run


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_may_hold_what_it_likes(run: Run, tmp_path: Path, name: str) -> None:
    """Made, renamed and deleted, and nothing else is touched."""
    (tmp_path / "x1").touch()
    before = names(tmp_path)
    assert run(MAKE, name) == 0
    assert (tmp_path / name).is_dir()
    assert run(MAKE, name) == 43
    assert run(RENAME, name, "plain") == 0
    assert run(RENAME, "plain", name) == 0
    assert names(tmp_path) == sorted([*before, name])
    assert run(RENAME, f"~/{name}", str(tmp_path / "plain")) == 0
    assert run(RENAME, "plain", f"~/{name}") == 0
    assert run(DELETE, name) == 0
    (tmp_path / name).touch()
    assert run(DELETE, name, k="tree") == 0
    assert names(tmp_path) == before


def test_a_file_an_empty_directory_and_a_tree_are_deleted_as_requested(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "full/deep/.hidden").mkdir(parents=True)
    (tmp_path / "full" / os.fsdecode(b"\xff\n")).touch()
    os.mkfifo(tmp_path / "pipe")
    for name in ("file", "empty", str(tmp_path / "pipe")):
        assert run(DELETE, name) == 0
    assert run(DELETE, "full") == 42
    assert run(DELETE, "full/deep") == 42
    assert names(tmp_path) == ["full"]
    assert run(DELETE, "full", k="tree") == 0
    assert names(tmp_path) == []
    assert run(DELETE, "full", k="tree") == 44
    assert run(DELETE, "full/deep") == 44


@pytest.mark.parametrize("tree", ["", "tree"])
def test_a_link_goes_and_what_it_leads_to_stays(run: Run, tmp_path: Path, tree: str) -> None:
    (tmp_path / "outside/deep").mkdir(parents=True)
    (tmp_path / "outside/kept").touch()
    (tmp_path / "to-directory").symlink_to("outside")
    (tmp_path / "to-file").symlink_to("outside/kept")
    (tmp_path / "broken").symlink_to("nowhere")
    for name in ("to-directory", "to-file", "broken"):
        assert run(DELETE, name, k=tree) == 0
    assert names(tmp_path) == ["outside"]
    assert names(tmp_path / "outside") == ["deep", "kept"]


def test_a_tree_is_deleted_without_what_its_links_lead_to(run: Run, tmp_path: Path) -> None:
    (tmp_path / "outside/deep").mkdir(parents=True)
    (tmp_path / "outside/kept").touch()
    (tmp_path / "tree/sub").mkdir(parents=True)
    for place in ("tree", "tree/sub"):
        (tmp_path / place / "relative").symlink_to(os.path.relpath(tmp_path / "outside", tmp_path / place))
        (tmp_path / place / "absolute").symlink_to(tmp_path / "outside")
        (tmp_path / place / "file").symlink_to(tmp_path / "outside/kept")
        (tmp_path / place / "up").symlink_to("..")
    assert run(DELETE, "tree", k="tree") == 0
    assert names(tmp_path) == ["outside"]
    assert names(tmp_path / "outside") == ["deep", "kept"]


@pytest.mark.parametrize("target", ["file", "directory", "empty", "broken", "link"])
def test_a_rename_replaces_nothing_and_goes_into_nothing(run: Run, tmp_path: Path, target: str) -> None:
    (tmp_path / "file").write_text("theirs")
    (tmp_path / "directory/sub").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "link").symlink_to("directory")
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert run(RENAME, "mine", target) == 43
    assert run(RENAME, "folder", target) == 43
    assert run(RENAME, "mine", "mine") == 43
    assert sorted(tmp_path.rglob("*")) == before
    assert ((tmp_path / "file").read_text(), (tmp_path / "mine").read_text()) == ("theirs", "mine")


def test_a_link_is_renamed_itself_and_a_file_goes_into_another_directory(run: Run, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("directory")
    (tmp_path / "file").write_text("it")
    assert run(RENAME, "link", "other") == 0
    assert (tmp_path / "other").readlink() == Path("directory")
    assert run(RENAME, "file", "directory/moved") == 0
    assert (tmp_path / "directory/moved").read_text() == "it"
    assert run(RENAME, "file", "elsewhere") == 44
    assert run(RENAME, "other", "nowhere/at/all") == 44
    assert run(MAKE, "nowhere/at/all") == 44
    assert run(MAKE, "directory/moved/below") == 44
    assert run(RENAME, "directory", "directory/itself") not in {0, *REFUSALS}
    assert (tmp_path / "directory/moved").read_text() == "it"


@pytest.mark.parametrize("there", [Path.touch, Path.mkdir])
def test_a_name_that_is_taken_meanwhile_is_not_replaced(tmp_path: Path, there: Callable[[Path], None]) -> None:
    """Whatever the first look has found: here it finds nothing."""
    (tmp_path / "mine").write_text("mine")
    there(tmp_path / "taken")
    blind = RENAME.replace('if there "$q"; then exit 43; fi\n', "", 1)
    assert blind != RENAME
    text = variables_and_script(blind, "mine", "taken")
    assert subprocess.run(["sh", "-c", text], cwd=tmp_path).returncode == 43
    assert (tmp_path / "mine").read_text() == "mine"
    assert list((tmp_path / "taken").iterdir() if there is Path.mkdir else []) == []


def test_a_relative_path_is_never_one_below_the_home(run: Run, tmp_path: Path) -> None:
    """Where the shell's working directory cannot be entered. Other paths need none."""
    (tmp_path / "build").mkdir()
    hidden = {"s": "nowhere"}
    assert run(DELETE, "build", k="tree", **hidden) == 41
    assert run(MAKE, "new", **hidden) == 41
    assert run(RENAME, "build", str(tmp_path / "new"), **hidden) == 41
    assert run(RENAME, str(tmp_path / "build"), "new", **hidden) == 41
    assert names(tmp_path) == ["build"]
    assert run(RENAME, str(tmp_path / "build"), "~/new", **hidden) == 0
    assert run(MAKE, "~/build", **hidden) == 0
    assert run(DELETE, str(tmp_path / "new"), k="tree", **hidden) == 0
    assert names(tmp_path) == ["build"]


def test_a_move_that_fails_midway_says_why(tmp_path: Path) -> None:
    """Between file systems mv copies. What is there then is its own, and nobody else's."""
    (tmp_path / "mine").touch()
    (tmp_path / "programs").mkdir()
    mv = tmp_path / "programs/mv"
    mv.write_text('#!/bin/sh\necho part >"$3"; echo "mv: error writing \'$3\': No space left on device" >&2; exit 1\n')
    mv.chmod(0o755)
    text = variables_and_script(RENAME, "mine", "there")
    path = f"{mv.parent}:{os.defpath}"
    ended = subprocess.run(["sh", "-c", text], cwd=tmp_path, env={"PATH": path}, capture_output=True, text=True)
    assert ended.returncode not in REFUSALS
    assert ended.stderr.splitlines()[-1].endswith("No space left on device")
    assert (tmp_path / "there").read_text() == "part\n"


def test_what_may_not_be_written_to_is_denied(tmp_path: Path) -> None:
    (tmp_path / "place/full").mkdir(parents=True)
    (tmp_path / "place/full/one").touch()
    (tmp_path / "place").chmod(0o555)
    tmp_path.chmod(0o755)
    # Root may write everywhere.
    user = 65534 if os.geteuid() == 0 else None
    for script, p, q in ((DELETE, "place/full", ""), (MAKE, "place/new", ""), (RENAME, "place/full", "new")):
        text = variables_and_script(script, p, q, k="tree")
        assert subprocess.run(["sh", "-c", text], cwd=tmp_path, user=user).returncode == 46
    assert (tmp_path / "place/full/one").exists()
