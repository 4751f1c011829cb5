"""Private names of libraries: each that is used is listed, and a version without one is refused in a sentence."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

import sshgate.ssh
from sshgate.config.private_names import attributes
from sshgate.providers.kubernetes.api import private as aiohttp_names
from sshgate.ssh._asyncssh.private import USED, WORKS

ROOM = Path(sshgate.ssh.__file__).parent
LISTED = {name for names in USED.values() for name in names.split()}
THEIRS = {
    name
    for module, kind in USED
    for name in attributes(f"asyncssh.{module}", kind)
    if name.startswith("_") and not name.startswith("__")
}


def private_names(file: Path) -> Iterator[tuple[str, bool]]:
    """The names with an underscore that a file uses, and whether as one of its own objects."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Attribute):
            name = node.value.id if isinstance(node.value, ast.Name) else ""
            yield node.attr, name in ("self", "cls") or name.startswith("_")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, True
        elif isinstance(node, ast.Assign):
            yield from ((one.id, True) for one in node.targets if isinstance(one, ast.Name))


def test_every_private_name_is_listed_and_none_in_vain() -> None:
    used = {name for file in (ROOM / "_asyncssh").glob("*.py") for name, _ in private_names(file)}
    assert used & THEIRS == LISTED


def test_no_other_file_uses_them() -> None:
    others = [file for file in ROOM.glob("*.py") for name, own in private_names(file) if name in THEIRS and not own]
    assert not others


def test_the_installed_version_is_the_one_that_works() -> None:
    assert version("asyncssh") == WORKS
    assert version("aiohttp") == aiohttp_names.WORKS


@pytest.mark.parametrize(
    ("change", "library", "missing"),
    [
        (
            "import asyncssh.connection as theirs; del theirs.SSHConnection._send_disconnect",
            f"asyncssh {WORKS}",
            "SSHServerConnection._send_disconnect",
        ),
        (
            "import asyncssh, sys; sys.modules['asyncssh.crypto.cipher'] = None",
            f"asyncssh {WORKS}",
            "GCMCipher._iv, GCMCipher._key",
        ),
        (
            "import aiohttp._websocket.helpers as theirs; del theirs.websocket_mask",
            f"aiohttp {aiohttp_names.WORKS}",
            "_websocket.helpers.websocket_mask",
        ),
        (
            "import aiohttp; del aiohttp.TCPConnector._wrap_create_connection",
            f"aiohttp {aiohttp_names.WORKS}",
            "TCPConnector._wrap_create_connection",
        ),
    ],
)
def test_a_version_without_a_name_is_refused_in_a_sentence(
    tmp_path: Path, change: str, library: str, missing: str
) -> None:
    provider = "local" if library.startswith("asyncssh") else "kubernetes"
    (tmp_path / "sshgate.yaml").write_text(f"sandbox: {{provider: {provider}}}\nssh: {{listen: '127.0.0.1:0'}}\n")
    code = f"{change}\nfrom sshgate.cli.main import main; main()"
    argv = [sys.executable, "-c", code, "serve", "-c", str(tmp_path / "sshgate.yaml")]
    ended = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.removeprefix("sshgate: ") == (
        f"{library} cannot be used, as it has no {missing}: "
        f"install the version that is known to work, {library.replace(' ', '==')}.\n"
    )
