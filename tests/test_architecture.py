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


def test_the_files_that_the_documents_name_are_there() -> None:
    missing = []
    for document in ("ARCHITECTURE.md", "README.md"):
        for name in re.findall(r"`((?:[a-z_-]+/)*[a-z_.-]+(?:\.py|\.md|\.yaml))`", (ROOT / document).read_text()):
            if not any((ROOT / place / name).exists() for place in ("", "sshgate")):
                missing.append(f"{document}: {name}")
    assert missing == []


def test_scripts_are_programs() -> None:
    for path in [*(ROOT / "scripts").iterdir(), ROOT / ".ci" / "run", ROOT / "tests" / "cluster" / "cluster"]:
        assert path.stat().st_mode & 0o111, f"{path} is not executable"
