"""The tree is as its documents say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_import_contracts_hold() -> None:
    """Who may import whom: .importlinter."""
    linter = Path(sys.executable).with_name("lint-imports")
    found = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "sshgate").rglob("*.py")
        if not path.read_text().lstrip().startswith(('"""', 'r"""'))
    ]
    assert silent == []


DOCUMENTS = ("ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "SECURITY.md", "docs/*.md", "docs/decisions/*.md")
NAMED = re.compile(r"`((?:[a-z_-]+/)*[a-z_.-]+(?:\.py|\.md|\.yaml|\.sh|\.js))`")
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)[^)]*\)")


def documents() -> dict[Path, str]:
    return {path: path.read_text() for pattern in DOCUMENTS for path in ROOT.glob(pattern)}


def test_the_files_that_the_documents_name_are_there() -> None:
    missing = [
        f"{path.name}: {name}"
        for path, text in documents().items()
        for name in NAMED.findall(text)
        if not any((ROOT / place / name).exists() for place in ("", "sshgate"))
    ]
    assert missing == []


def test_the_links_of_the_documents_lead_to_files() -> None:
    missing = [
        f"{path.name}: {link}"
        for path, text in documents().items()
        for link in LINK.findall(text)
        if not (path.parent / link).exists()
    ]
    assert missing == []


def test_the_index_has_every_decision_once_and_in_order() -> None:
    """Numbers never change: other texts refer to "decision 4"."""
    files = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    linked = re.findall(r"\]\(docs/decisions/([^)]+)\)", (ROOT / "ARCHITECTURE.md").read_text())
    assert linked == [path.name for path in files]
    for number, path in enumerate(files, 1):
        assert path.name.startswith(f"{number:02}-")
        assert path.read_text().startswith(f"# {number}. ")


def test_scripts_are_programs() -> None:
    for path in [*(ROOT / "scripts").iterdir(), ROOT / ".ci" / "run", ROOT / "tests" / "cluster" / "cluster"]:
        assert path.stat().st_mode & 0o111, f"{path} is not executable"
