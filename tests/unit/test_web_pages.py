"""The page in the package: self-hosted, whole, and what the locked packages make."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request

from webshim.pages import ENTRIES, INDEX, STYLE, STYLES, VERSIONS, WATCH, Pages

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "webshim" / "static"
REFERENCE = re.compile(r"""(?:(?:src|href)=|from |import\()["']([^"'#]+)["'#]""")


def test_every_file_of_the_page_is_in_the_wheel(tmp_path: Path) -> None:
    """What a browser asks for can be served from an installed package; nothing of the build is in it."""
    build = "import sys; from setuptools import build_meta as b; b.build_wheel(sys.argv[1])"
    made = subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=_copy(tmp_path), capture_output=True)
    assert made.returncode == 0, made.stderr.decode()
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("webshim/")}
    page = {
        str(path.relative_to(ROOT))
        for path in STATIC.rglob("*")
        if path.is_file() and path.suffixes[-2:] != [".d", ".ts"]
    }
    assert page <= packed
    assert not [name for name in packed if "page/" in name or name.endswith(".ts")]


def test_the_page_refers_to_nothing_but_its_own_files() -> None:
    """No CDN, no dead name: every address in our own files is that of a file beside them."""
    for file in [*STATIC.glob("*.html"), *STATIC.glob("*.js")]:
        for reference in REFERENCE.findall(file.read_text()):
            if not reference.startswith(("/", "http://www.w3.org/")):
                assert (STATIC / reference).is_file(), f"{file.name} refers to {reference}"


def test_comments_of_our_own_parts_are_not_sent() -> None:
    """They would be a twelfth of a first load; all code stays, but for what joins modules, in one script for a page."""
    pages = Pages()
    for entry in ENTRIES:
        sent = (pages.part(entry, make_mocked_request("GET", "/")).body or b"").decode()
        assert not re.search(r"^\s*(//|/\*\*? .*\*/$| \* @)", sent, re.MULTILINE)
        parts = re.split(r'^"(\w+\.js)": once', sent, flags=re.MULTILINE)[1:]
        assert len(parts) > 20
        for name, text in zip(parts[::2], parts[1::2], strict=True):
            written = _code((STATIC / name).read_text())
            assert {line.removeprefix("export ") for line in written if "import" not in line} <= set(
                text.split("\n")
            ), name
    for name, files in {STYLE: STYLES, "files.css": ["files.css"]}.items():
        style = (pages.part(name, make_mocked_request("GET", "/")).body or b"").decode()
        own = [line for file in files for line in _code((STATIC / file).read_text()) if "/" not in file]
        assert style.split("\n")[-1 - len(own) : -1] == own, name


def test_the_styles_of_a_page_are_sent_as_one() -> None:
    """In the order of its links, of which one remains; both pages have the same ones."""
    pages = Pages()
    vendor, *_ = (STATIC / STYLES[0]).read_text().splitlines()
    assert (pages.part(STYLE, make_mocked_request("GET", "/")).body or b"").decode().startswith(vendor)
    for name in (INDEX, WATCH):
        link = re.compile(r'<link rel="stylesheet" href="([^"]+)">')
        assert tuple(link.findall((STATIC / name).read_text())) == STYLES
        assert link.findall(pages.index("", name).text or "") == [f"{VERSIONS}/{pages.version}/{STYLE}"]


def _code(text: str) -> list[str]:
    """The lines that are not within a comment, and not empty, read one by one."""
    lines, inside = [], False
    for line in text.split("\n"):
        begins = inside or line.strip().startswith(("/*", "//"))
        if line.strip().startswith("/*") and not line.rstrip().endswith("*/") and "*/" in line:
            begins = False  # a cast before code
        if not begins:
            # Types in a line of code.
            first, *others = line.split("/** @")
            lines.append(first + "".join(other.partition("*/")[2].removeprefix(" ") for other in others))
        inside = begins and not line.strip().startswith("//") and "*/" not in line
    return [line.lstrip() for line in lines if line]


@pytest.mark.skipif(shutil.which("npm") is None, reason="no npm on this machine")
def test_the_packages_are_those_of_the_lock_and_the_types_of_the_page_hold() -> None:
    """``scripts/page --check``: a changed lock or a changed copy is seen."""
    checked = subprocess.run([ROOT / "scripts" / "page", "--check"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def _copy(place: Path) -> Path:
    """The tracked files, so that the build leaves nothing in this checkout."""
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True
    ).stdout.decode()
    source = place / "source"
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    return source
