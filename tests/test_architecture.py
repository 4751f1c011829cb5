"""The tree is as its documents say."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_import_contracts_hold() -> None:
    """Who may import whom: .importlinter."""
    linter = Path(sys.executable).with_name("lint-imports")
    found = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_imports_make_no_circle() -> None:
    """Neither between modules nor between folders; also not by imports that only the type checker sees."""
    imports: dict[str, set[str]] = {}
    folder_of: dict[str, str] = {}
    for path in [*(ROOT / "sshgate").rglob("*.py"), *(ROOT / "webshim").glob("*.py")]:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        # A module beside the packages is a folder of its own.
        alone = path.parent.name == "sshgate" or path.name == "__init__.py"
        folder_of[name] = name if alone else name.rpartition(".")[0]
        imports[name] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                imports[name].update([node.module, *(f"{node.module}.{one.name}" for one in node.names)])
            elif isinstance(node, ast.Import):
                imports[name].update(one.name for one in node.names)
    modules = {
        # `from package import module` names the package too.
        name: {one for one in found if one in imports and one != name and not name.startswith(f"{one}.")}
        for name, found in imports.items()
    }
    folders: dict[str, set[str]] = {}
    for name, found in modules.items():
        there = {folder_of[one] for one in found} - {folder_of[name]}
        folders.setdefault(folder_of[name], set()).update(there)
    for graph in (modules, folders):
        TopologicalSorter(graph).prepare()


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
    numbers = [int(path.name[:2]) for path in files]
    assert len(set(numbers)) == len(numbers)
    for number, path in zip(numbers, files, strict=True):
        assert path.read_text().startswith(f"# {number}. ")


# Right uses of words that are wrong elsewhere, by the files that have them.
RIGHT = {
    "presence": r"access/key_line|ssh/(authentication|_asyncssh/userauth)",  # FIDO's "user presence"
    "tell": "transfer/tarball",  # of Python's files
    "trail": "transfer/",  # the directories that were entered
}
PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def replaced_words() -> list[list[str]]:
    """The words of the glossary's last column that no identifier has."""
    glossary = (ROOT / "CONTRIBUTING.md").read_text().partition("## Glossary")[2]
    columns = re.findall(r"^\|[^|]+\|[^|]+\|([^|]*)\|$", glossary, re.M)[2:]
    phrases = [phrase.strip() for column in columns for phrase in column.split(",")]
    return [phrase.split() for phrase in phrases if phrase and not phrase.startswith("*")]


def identifiers(path: Path) -> Iterator[str]:
    """The names that a module defines, and its own."""
    yield path.stem
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg


def test_no_identifier_has_a_word_that_the_glossary_replaces() -> None:
    replaced = replaced_words()
    assert ["door"] in replaced
    assert len(replaced) > 25
    wrong = set()
    for path in [*(ROOT / "sshgate").rglob("*.py"), *(ROOT / "webshim").rglob("*.py")]:
        for name in identifiers(path):
            parts = [part.lower() for part in PART.findall(name)]
            for words in replaced:
                places = range(len(parts) - len(words) + 1)
                right = RIGHT.get(words[0])
                if any(parts[at : at + len(words)] == words for at in places) and not (
                    right and re.search(right, str(path))
                ):
                    wrong.add(f"{path.relative_to(ROOT)}: {name} has the word {' '.join(words)!r}")
    assert sorted(wrong) == []


# Unit tests of what is not a module of the product.
OF_NO_MODULE = {"layers", "network_rules", "tally"}


def test_unit_tests_are_found_by_their_modules_name() -> None:
    """``sshgate/a/b/c.py``: ``tests/unit/test_b_c.py`` or ``test_a_c.py``, perhaps with a topic behind it.

    Those of the page's ``c.js``: ``test_web_page_c.py``.
    """
    names = {f"web_page_{path.stem}" for path in (ROOT / "webshim" / "static").glob("*.js")}
    for root in ("sshgate", "webshim"):
        for path in (ROOT / root).rglob("*.py"):
            rooms = path.relative_to(ROOT / root).parts[:-1] if root == "sshgate" else ("web",)
            names |= {f"{room.strip('_')}_{path.stem.strip('_')}" for room in rooms}
    lost = [
        path.name
        for path in (ROOT / "tests" / "unit").glob("test_*.py")
        if not any(f"{path.stem}_".startswith(f"test_{name}_") for name in names)
        and path.stem.removeprefix("test_") not in OF_NO_MODULE
    ]
    assert sorted(lost) == []


def test_scripts_are_programs() -> None:
    for path in [*(ROOT / "scripts").iterdir(), ROOT / ".ci" / "run", ROOT / "tests" / "cluster" / "cluster"]:
        assert path.stat().st_mode & 0o111, f"{path} is not executable"
