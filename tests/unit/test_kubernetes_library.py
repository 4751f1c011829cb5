"""What is taken of kubernetes_asyncio, and what is left out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

_READ = """
import asyncio, sys
from pathlib import Path
{before}
from sshgate.config.model import SandboxPlace
from sshgate.providers.kubernetes.api import credentials

async def main():
    known = await credentials.read(SandboxPlace(kubeconfig=Path(sys.argv[1])))
    print(known.host, (await known.headers())["Authorization"])

asyncio.run(main())
print("models" if "kubernetes_asyncio.client.models" in sys.modules else "no models")
"""


def _loaded(kubeconfig: Path, before: str = "") -> list[str]:
    command = [sys.executable, "-c", _READ.format(before=before), str(kubeconfig)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def _kubeconfig(place: Path) -> Path:
    path = place / "kubeconfig"
    known = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "word"}}],
    }
    path.write_text(yaml.safe_dump(known))
    return path


def test_credentials_are_read_without_the_models_of_the_api(tmp_path: Path) -> None:
    """They take a quarter of a second of every copy, and 30 MiB of every gateway."""
    assert _loaded(_kubeconfig(tmp_path)) == ["http://127.0.0.1:1 Bearer word", "no models"]


def test_a_library_that_was_imported_whole_is_used_as_it_is(tmp_path: Path) -> None:
    assert _loaded(_kubeconfig(tmp_path), "import kubernetes_asyncio") == ["http://127.0.0.1:1 Bearer word", "models"]


def test_a_version_that_has_its_configuration_elsewhere_is_imported_whole(tmp_path: Path) -> None:
    """What the package itself offers is promised by the library; the file behind it is not."""
    elsewhere = """
import importlib.util
class Elsewhere:
    asked = 0
    def find_spec(self, name, path, target=None):
        if name == "kubernetes_asyncio.client.configuration" and not Elsewhere.asked:
            Elsewhere.asked = 1
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Elsewhere())
"""
    assert _loaded(_kubeconfig(tmp_path), elsewhere) == ["http://127.0.0.1:1 Bearer word", "models"]


def _printed(program: str) -> list[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()


def test_what_the_configuration_seldom_needs_is_imported_when_it_is_used() -> None:
    report = _printed("""
import sys
from sshgate.providers.kubernetes.api import library
configuration = library.load().Configuration()
print("urllib3" in sys.modules)
configuration.username, configuration.password = "a", "b"
print(configuration.get_basic_auth_token(), "urllib3" in sys.modules)
""")
    assert report == ["False", "Basic", "YTpi", "True"]


def test_what_was_imported_before_is_not_replaced() -> None:
    report = _printed("""
import sys, urllib3
from sshgate.providers.kubernetes.api import library
library.load()
print(sys.modules["urllib3"] is urllib3, sys.modules["kubernetes_asyncio.client.configuration"].urllib3 is urllib3)
""")
    assert report == ["True", "True"]
