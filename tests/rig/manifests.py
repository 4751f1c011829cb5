"""What `kubectl apply -k` would send: the rendered overlays of manifests/, as objects."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
COMMAND = ROOT / "tests" / "cluster" / "cluster"
OVERLAYS = ROOT / "manifests" / "overlays"
GATEWAY_NAMESPACE = "claudecode-terminal"
SANDBOX_NAMESPACE = "claudecode-sandboxes"
# Every directory somebody may apply.
NAMES = sorted(path.parent.name for path in OVERLAYS.glob("*/kustomization.yaml"))

# What tests have made, and may delete where an earlier run was cut short.
TEST_MARK = {"sshgate.dev/test": "true"}

Thing = dict[str, Any]


def kubectl(*words: str, stdin: str | None = None, limit: float = 60) -> str:
    """kubectl on the cluster, in no namespace of its own; its output. Raises ``CalledProcessError``."""
    argv = [str(COMMAND), "kubectl", *words]
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, check=True, timeout=limit).stdout


@functools.cache
def rendered(directory: Path) -> str:
    """The text that kustomize makes of a directory; ``manifests/overlays/NAME`` or any other."""
    return kubectl("kustomize", str(directory))


def objects(overlay: str) -> list[Thing]:
    """The objects of an overlay, each a fresh copy."""
    return list(yaml.safe_load_all(rendered(OVERLAYS / overlay)))


def only(things: list[Thing], kind: str, name: str | None = None) -> Thing:
    """The one object of this kind (and name)."""
    found = [thing for thing in things if thing["kind"] == kind and name in (None, thing["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} objects are a {kind} {name or ''}"
    return found[0]


def mapped_ports(path: str) -> dict[int, int]:
    """Which port of its node a kind configuration shows at which port of this machine's loopback: theirs by ours."""
    mappings = yaml.safe_load((ROOT / path).read_text())["nodes"][0]["extraPortMappings"]
    assert {mapping["listenAddress"] for mapping in mappings} == {"127.0.0.1"}
    return {mapping["hostPort"]: mapping["containerPort"] for mapping in mappings}


def called(thing: Thing) -> str:
    """``Kind namespace/name``."""
    meta = thing["metadata"]
    return f"{thing['kind']} {meta['namespace'] + '/' if 'namespace' in meta else ''}{meta['name']}"


def write_overlay(place: Path, overlay: str = "k3s", components: Sequence[Path] = (), **more: Any) -> None:
    """An overlay of an operator's own in the directory ``place``, upon one of ours. kustomize wants relative paths."""
    text = {
        "resources": [os.path.relpath(OVERLAYS / overlay, place)],
        "labels": [{"pairs": TEST_MARK}],
        "components": [os.path.relpath(component, place) for component in components],
        **more,
    }
    (place / "kustomization.yaml").write_text(yaml.safe_dump(text))
