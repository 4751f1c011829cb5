"""The test cluster, and a namespace of our own on it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.rig import api, rights
from tests.rig.waiting import until

COMMAND = Path(__file__).resolve().parents[1] / "cluster" / "cluster"
IMAGE = "claudecode-sandbox:latest"
NO_SHELL = "sshgate-noshell:latest"
BUSYBOX = "sshgate-busybox:latest"
# The runtime of the pods that tests make: gvisor, for one; the cluster's own unless it is set.
RUNTIME_CLASS = os.environ.get("SSHGATE_RUNTIME_CLASS") or None
# Anything longer means that a pod was forgotten: two seconds of grace, and the kubelet's own work.
POD_GONE = 30.0

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}


def why_not() -> str | None:
    """Why there is no cluster for the tests; ``None`` when there is one."""
    if refused := os.environ.get("SSHGATE_NO_CLUSTER"):
        return refused
    found = subprocess.run([COMMAND, "env"], capture_output=True, text=True, check=False)
    return None if found.returncode == 0 else "no cluster: start one with tests/cluster/cluster up"


def kubeconfig() -> Path:
    """The file that leads to the cluster."""
    found = subprocess.run([COMMAND, "env"], capture_output=True, text=True, check=True)
    return Path(found.stdout.strip())


def is_our_own() -> bool:
    """Whether parts of it can be stopped: it is the one-node cluster."""
    status = subprocess.run([COMMAND, "status"], capture_output=True, text=True, check=True).stdout
    return "cluster: node" in status


def audit_log() -> str:
    """What gateways have asked of the API server, as it wrote it down; empty where it does not."""
    state = Path(os.environ.get("SSHGATE_CLUSTER_DIR", "/var/lib/sshgate-cluster"))
    return "".join(file.read_text() for file in state.glob("log/audit*.log"))


def component(verb: str, name: str) -> None:
    """``stop`` or ``start`` a part of the one-node cluster; returns when it is so."""
    subprocess.run([COMMAND, f"{verb}-component", name], check=True, capture_output=True, timeout=120)


def recover() -> None:
    """End an outage for good; returns when the node takes pods.

    What watches an API server that was away looks again only after up to a minute. Some 20 s after the outage the node
    controller then takes a node for lost whose heartbeats have stopped, 40 s later it taints it, and pods of other
    tests find no node. A part that begins anew looks at once.
    """
    for name in ("apiserver", "containerd"):
        component("start", name)
    began = datetime.now(UTC).replace(microsecond=0)
    for name in ("controller-manager", "scheduler", "kubelet"):
        component("stop", name)
        component("start", name)
    until(lambda: _takes_pods(began), 60, "the node taking pods")


def _takes_pods(since: datetime) -> bool:
    nodes = api.ask("GET", "/api/v1/nodes")["items"]
    beats = [
        condition["status"] == "True" and datetime.fromisoformat(condition["lastHeartbeatTime"]) >= since
        for node in nodes
        for condition in node["status"]["conditions"]
        if condition["type"] == "Ready"
    ]
    return bool(beats) and all(beats) and not any(node["spec"].get("taints") for node in nodes)


@dataclass(frozen=True)
class Namespace:
    """A place on the cluster for the pods of one test run."""

    name: str
    kubeconfig: Path
    gateway: Path
    """A kubeconfig with the rights that the manifests give a gateway, here and nowhere else."""

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        """Run kubectl here; its output. Raises ``CalledProcessError``."""
        argv = [str(COMMAND), "kubectl", "--namespace", self.name, *words]
        return subprocess.run(argv, input=stdin, capture_output=True, text=True, check=True, timeout=60).stdout

    def apply(self, thing: dict[str, Any]) -> None:
        """Make or change any object. A quota is in force when this returns."""
        self.kubectl("apply", "--filename=-", stdin=json.dumps(thing))
        if thing["kind"] == "ResourceQuota":
            # Admission disregards it until its controller has written its status.
            name = f"resourcequota/{thing['metadata']['name']}"
            self.kubectl("wait", "--for=jsonpath={.status.hard}", name, "--timeout=30s")

    def pods(self) -> list[dict[str, Any]]:
        """Every pod that is there, also one that is on its way out."""
        return self.objects("pods")

    def leases(self) -> list[dict[str, Any]]:
        """Every Lease that is there."""
        return self.objects("leases", "apis/coordination.k8s.io/v1")

    def objects(self, kind: str, group: str = "api/v1") -> list[dict[str, Any]]:
        """Every object of a kind (the plural) that is there. Raises ``api.Refused``."""
        found: list[dict[str, Any]] = api.ask("GET", f"/{group}/namespaces/{self.name}/{kind}")["items"]
        return found

    def living(self) -> list[str]:
        """Names of the pods that nobody has deleted."""
        return [pod["metadata"]["name"] for pod in self.pods() if "deletionTimestamp" not in pod["metadata"]]

    def wait_empty(self, limit: float = POD_GONE) -> None:
        """Return when no pod is left."""
        until(lambda: not self.pods(), limit, f"the namespace {self.name} being empty")


@contextmanager
def namespace(labels: dict[str, str] | None = None) -> Iterator[Namespace]:
    """A namespace that enforces the restricted pod security profile; deleted at the end, with all that is in it."""
    name, admin = f"sshgate-e2e-{secrets.token_hex(4)}", kubeconfig()
    with tempfile.TemporaryDirectory() as directory:
        yield from _namespace(Namespace(name, admin, Path(directory) / "gateway.kubeconfig"), labels)


def _namespace(place: Namespace, labels: dict[str, str] | None) -> Iterator[Namespace]:
    metadata = {"name": place.name, "labels": RESTRICTED if labels is None else labels}
    api.ask("POST", "/api/v1/namespaces", {"metadata": metadata})
    try:
        # Pods are refused until the controller has made this. An API server that was restarted forbids its first
        # watches, and it waits longer each time: up to two minutes, of which the end of the test before takes some.
        until(lambda: place.objects("serviceaccounts"), 100, "the service account")
        rights.grant(place.name)
        rights.kubeconfig(place.name, rights.ACCOUNT, place.kubeconfig, place.gateway)
        yield place
    finally:
        api.ask("DELETE", f"/api/v1/namespaces/{place.name}")
