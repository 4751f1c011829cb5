"""The gateway as operators have it: its image, the k3s overlay with settings of their own, keys in Secrets."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.rig import api
from tests.rig.cluster import Namespace, kubeconfig
from tests.rig.manifests import (
    COMMAND,
    GATEWAY_NAMESPACE,
    OVERLAYS,
    ROOT,
    SANDBOX_NAMESPACE,
    TEST_MARK,
    kubectl,
    objects,
    only,
    write_overlay,
)
from tests.rig.ssh import Ssh, make_key
from tests.rig.waiting import until

SSH_PORT = 2222
WEB_PORT = 31000
# A rollout on a busy machine: two starts of a Python program, and probes every few seconds.
ROLLED = 120.0
GONE = 90.0
# Secrets and ConfigMaps reach a pod within a minute by themselves.
ARRIVED = 100.0
MARK = ",".join(f"{key}={value}" for key, value in TEST_MARK.items())

# Beside the default profile, unchanged: one with bounds that a test can reach.
SMALL = {
    "extends": "default",
    "resources": {
        "requests": {"cpu": "10m", "memory": "32Mi", "ephemeral-storage": "16Mi"},
        "limits": {"cpu": "1", "memory": "192Mi", "ephemeral-storage": "64Mi"},
    },
}


@dataclass(frozen=True)
class Deployed:
    """A running installation, and the operator's directory for it."""

    place: Path
    gateway: Namespace
    sandboxes: Namespace

    @property
    def host(self) -> str:
        """An address of the node on which the services answer."""
        return node_address()

    def user(self, name: str, place: Path) -> Ssh:
        """A new user, who can log in by now."""
        place.mkdir(parents=True, exist_ok=True)
        make_key(place / "id")
        self.keys("user", name, str(place / "id.pub"))
        self.sync()
        user = Ssh(place, SSH_PORT, name, self.host)
        until(lambda: user.run("true").status == 0, ARRIVED, f"{name} being let in")
        return user

    def sync(self) -> None:
        """Make the kubelet look at the gateway's pods now, and so bring what changed in Secrets and ConfigMaps."""
        now = f"sshgate.dev/looked-at={time.monotonic_ns()}"
        self.gateway.kubectl("annotate", "pods", "--selector=app.kubernetes.io/name=sshgate", "--overwrite", now)

    def keys(self, *words: str, stdin: str = "") -> str:
        """``manifests/keys``, as operators call it."""
        environment = {**os.environ, "KUBECTL": f"{COMMAND} kubectl"}
        argv = [str(ROOT / "manifests" / "keys"), *words]
        ran = subprocess.run(argv, env=environment, input=stdin, check=True, capture_output=True, text=True, timeout=60)
        return ran.stdout

    def apply(self, overlay: Path | None = None) -> None:
        """``kubectl apply -k`` of the operator's overlay, or of another one."""
        kubectl("apply", "--kustomize", str(overlay or self.place))

    def rolled(self) -> None:
        """Return when the Deployment has the replicas that it should have, all of them new and ready."""
        words = ("rollout", "status", "deployment/gateway", f"--timeout={ROLLED:g}s")
        kubectl("--namespace", self.gateway.name, *words, limit=ROLLED + 10)

    def restart(self) -> None:
        """New gateways, which have the settings that count only from a start."""
        self.gateway.kubectl("rollout", "restart", "deployment/gateway")
        self.rolled()

    def pods(self) -> list[str]:
        """Names of the gateway's pods that are not ending."""
        return self.gateway.living()

    def log(self) -> str:
        """What all gateways have logged lately, and what their pods complain of."""
        words = ("logs", "--selector=app.kubernetes.io/name=sshgate", "--tail=60", "--prefix", "--all-containers")
        return self.gateway.kubectl(*words) + self.gateway.kubectl("get", "events", "--sort-by=.lastTimestamp")


def node_address() -> str:
    """The address by which this machine reaches others: services with a load balancer answer on it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # nothing is sent
        return str(probe.getsockname()[0])


def why_not() -> str | None:
    """Why the gateway cannot be deployed here. What an earlier run of these tests has left is removed."""
    names = kubectl("get", "namespaces", "--output=name").split()
    ours = kubectl("get", "namespaces", f"--selector={MARK}", "--output=name").split()
    wanted = {f"namespace/{name}" for name in (GATEWAY_NAMESPACE, SANDBOX_NAMESPACE)}
    if taken := (wanted & set(names)) - set(ours):
        return f"somebody's own sshgate is on this cluster: {' '.join(sorted(taken))}"
    if ours:
        remove()
    return None


@contextmanager
def deployed(place: Path) -> Iterator[Deployed]:
    """Everything from building the image to a gateway that answers; at the end nothing of it is left."""
    load_image()
    write_settings(place)
    admin = kubeconfig()
    made = Deployed(place, _namespace(GATEWAY_NAMESPACE, admin), _namespace(SANDBOX_NAMESPACE, admin))
    try:
        made.apply()
        made.keys("host")
        load_balancer()
        made.rolled()
        yield made
    except subprocess.CalledProcessError as error:
        raise AssertionError(f"{error}\n{error.stderr}\n{made.log()}") from error
    finally:
        remove()


def load_image() -> None:
    """Build the gateway's image, unless this very state was built before, and load it into the node."""
    built = subprocess.run([ROOT / "manifests" / "image" / "build"], check=True, capture_output=True, text=True)
    archive = built.stdout.splitlines()[-1]
    subprocess.run([ROOT / "sandbox-image" / "load", "--to", "test", archive], check=True, capture_output=True)


def write_settings(place: Path, **changes: Any) -> None:
    """The operator's overlay: k3s with the node's address closed to sandboxes, and settings of the operator's own."""
    settings = yaml.safe_load(only(objects("k3s"), "ConfigMap", "sshgate")["data"]["sshgate.yaml"])
    settings["profiles"] |= {"small": SMALL, "wide": {"extends": "default", "forward": {"elsewhere": True}}}
    (place / "sshgate.yaml").write_text(yaml.safe_dump({**settings, **changes}))
    generator = {"name": "sshgate", "namespace": GATEWAY_NAMESPACE, "behavior": "merge", "files": ["sshgate.yaml"]}
    except_node = {"op": "add", "path": "/spec/egress/1/to/0/ipBlock/except/-", "value": f"{node_address()}/32"}
    patch = {"target": {"kind": "NetworkPolicy", "name": "sandboxes"}, "patch": json.dumps([except_node])}
    options = {"disableNameSuffixHash": True}
    write_overlay(place, configMapGenerator=[generator], generatorOptions=options, patches=[patch])


def load_balancer() -> None:
    """What k3s' ServiceLB does for a service of its type: it writes the node's address into the status."""
    status = {"status": {"loadBalancer": {"ingress": [{"ip": node_address()}]}}}
    words = ("patch", "service", "ssh", "--subresource=status", "--type=merge", f"--patch={json.dumps(status)}")
    kubectl("--namespace", GATEWAY_NAMESPACE, *words)


def remove() -> None:
    """``kubectl delete -k``; nothing may be left, in the namespaces or of the cluster.

    The Deployment first: Kubernetes looks at a namespace that is to end again only after half the grace period of a
    pod that it found there, which for the gateway is minutes.
    """
    words = ("delete", "deployment", "gateway", "--ignore-not-found", "--cascade=foreground")
    kubectl("--namespace", GATEWAY_NAMESPACE, *words, limit=GONE)
    kubectl("delete", "--kustomize", str(OVERLAYS / "k3s"), "--ignore-not-found", "--wait=false")
    until(lambda: not remains(), GONE, "the end of all that was deployed")


def remains() -> list[str]:
    """What is still there of the objects that an overlay brings, and of all that was made in its namespaces."""
    admission = "apis/admissionregistration.k8s.io/v1/validatingadmissionpolic"
    kinds = "api/v1/namespaces", "apis/scheduling.k8s.io/v1/priorityclasses", f"{admission}ies", f"{admission}ybindings"
    ours = {thing["metadata"]["name"] for thing in objects("k3s") if "namespace" not in thing["metadata"]}
    metas = [thing["metadata"] for kind in (*kinds, "api/v1/pods") for thing in api.ask("GET", f"/{kind}")["items"]]
    return [meta["name"] for meta in metas if meta.get("namespace", meta["name"]) in ours]


def _namespace(name: str, admin: Path) -> Namespace:
    return Namespace(name, admin, admin)
