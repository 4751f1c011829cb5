"""More nodes, without an edit: GPU sandboxes go where the GPUs are, three gateways go to three nodes.

Further nodes are ``Node`` objects with a capacity and a fresh ``Ready`` condition: the real scheduler binds to them,
and nothing runs there. While they are there other pods could be bound to them too, hence the taints.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sshgate.config.load import load
from sshgate.config.model import Profile
from sshgate.providers.kubernetes import podspec
from tests.rig import cluster as rig_cluster
from tests.rig.cluster import Namespace
from tests.rig.deployed import Deployed
from tests.rig.manifests import ROOT, kubectl, objects, only, write_overlay
from tests.rig.waiting import until

pytestmark = pytest.mark.cluster

CAPACITY = {"cpu": "16", "memory": "64Gi", "pods": "110", "ephemeral-storage": "500Gi"}
GPU_TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
BOUND = 30.0


@contextmanager
def node(name: str, labels: dict[str, str], taints: list[dict[str, str]], gpus: int = 0) -> Iterator[None]:
    """A node that can be bound to for the next 40 s."""
    meta = {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", **labels}}
    thing = {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": {"taints": taints}}
    kubectl("create", "--filename=-", stdin=json.dumps(thing))
    try:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "Test",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        amounts = {**CAPACITY, "nvidia.com/gpu": str(gpus)}
        status = {"status": {"capacity": amounts, "allocatable": amounts, "conditions": [ready]}}
        kubectl("patch", "node", name, "--subresource=status", f"--patch={json.dumps(status)}")
        # The controller's own taint stays until it has seen the condition.
        until(lambda: "not-ready" not in kubectl("get", "node", name, "--output=json"), 20, f"{name} being ready")
        yield
    finally:
        kubectl("delete", "node", name)


def gpu_node(name: str, accelerator: str) -> AbstractContextManager[None]:
    """A node with one GPU, as GROWING.md has it joined."""
    return node(name, {"accelerator": accelerator}, [GPU_TAINT], gpus=1)


@pytest.fixture(scope="module")
def space(cluster: Path) -> Iterator[Namespace]:
    with rig_cluster.namespace() as place:
        yield place


@pytest.fixture(scope="module")
def runtime_class(cluster: Path) -> Iterator[None]:
    """What k3s brings along for NVIDIA."""
    there = kubectl("get", "runtimeclasses", "--output=name").split()
    thing = {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": "nvidia"},
        "handler": "nvidia",
    }
    ours = "runtimeclass.node.k8s.io/nvidia" not in there
    if ours:
        kubectl("create", "--filename=-", stdin=json.dumps(thing))
    yield
    if ours:
        kubectl("delete", "runtimeclass", "nvidia")


def profile(name: str, place: Path) -> Profile:
    """A profile as the gpu overlay has it."""
    text = only(objects("gpu"), "ConfigMap", "sshgate")["data"]["sshgate.yaml"]
    (place / "sshgate.yaml").write_text(text)
    return load(place / "sshgate.yaml").profiles[name]


def pod(name: str, wanted: Profile) -> dict[str, Any]:
    """A sandbox of this profile, as the gateway makes it; the priority class is the installation's."""
    spec = podspec.template(wanted)
    spec.pop("priorityClassName")
    return podspec.manifest(name, spec, {}, {})


def bound_to(space: Namespace, name: str) -> str:
    return space.kubectl("get", "pod", name, "--output=jsonpath={.spec.nodeName}")


def test_each_gpu_profile_goes_to_the_nodes_that_have_its_gpu(
    space: Namespace, runtime_class: None, tmp_path: Path
) -> None:
    with gpu_node("test-t4", "nvidia-t4"), gpu_node("test-a2", "nvidia-a2"):
        for name in ("t4", "a2"):
            space.apply(pod(f"on-{name}", profile(name, tmp_path)))
            until(lambda: bound_to(space, f"on-{name}"), BOUND, f"{name} being bound")  # noqa: B023
            assert bound_to(space, f"on-{name}") == f"test-{name}"
        # Each node has one GPU: the next one waits, although CPU and memory are free.
        space.apply(pod("second-t4", profile("t4", tmp_path)))
        why = '--output=jsonpath={.status.conditions[?(@.type=="PodScheduled")].message}'
        report = until(lambda: space.kubectl("get", "pod", "second-t4", why), BOUND, "the scheduler's reason")
        assert "Insufficient nvidia.com/gpu" in report
        space.kubectl("delete", "pods", "--all", "--force", "--grace-period=0")


def test_a_sandbox_without_a_gpu_keeps_off_the_gpu_nodes(space: Namespace, tmp_path: Path) -> None:
    with gpu_node("test-t4", "nvidia-t4"):
        space.apply(pod("plain", profile("default", tmp_path)))
        assert until(lambda: bound_to(space, "plain"), BOUND, "a node for it") != "test-t4"
        space.kubectl("delete", "pod", "plain", "--force", "--grace-period=0")


def test_sandboxes_go_to_the_nodes_that_are_labelled_for_them(space: Namespace, tmp_path: Path) -> None:
    """The label of GROWING.md, on a node with a taint that only this pod tolerates."""
    label = "sshgate.dev/sandboxes"
    assert f"{label}=true" in (ROOT / "manifests" / "GROWING.md").read_text()
    taint = {"key": "sshgate.dev/test", "value": "true", "effect": "NoSchedule"}
    thing = pod("placed", profile("default", tmp_path))
    thing["spec"] |= {"nodeSelector": {label: "true"}, "tolerations": [{**taint, "operator": "Equal"}]}
    with node("test-worker", {label: "true"}, [taint]):
        space.apply(thing)
        assert until(lambda: bound_to(space, "placed"), BOUND, "a node for it") == "test-worker"
        space.kubectl("delete", "pod", "placed", "--force", "--grace-period=0")


def test_three_gateways_go_to_three_nodes(deployed: Deployed, tmp_path: Path) -> None:
    """The ha overlay, from nothing. Only the gateway on the node with a machine behind it will run.

    The other nodes are closed to all other pods, which tests beside this one make.
    """
    taint = {"key": "sshgate.dev/test", "value": "gateways", "effect": "NoSchedule"}
    tolerated = {"op": "add", "path": "/spec/template/spec/tolerations", "value": [{**taint, "operator": "Equal"}]}
    patch = {"target": {"kind": "Deployment", "name": "gateway"}, "patch": json.dumps([tolerated])}
    write_overlay(tmp_path, "ha", patches=[patch])
    deployed.gateway.kubectl("scale", "deployment/gateway", "--replicas=0")
    until(lambda: not deployed.gateway.pods(), BOUND, "no gateway")
    with node("test-second", {}, [taint]), node("test-third", {}, [taint]):
        try:
            deployed.apply(tmp_path)
            until(lambda: len(nodes_of(deployed)) == 3, BOUND, "three gateways being bound")
            found = nodes_of(deployed)
            assert {"test-second", "test-third"} < set(found.values())
            assert len(set(found.values())) == 3
        finally:
            deployed.gateway.kubectl("scale", "deployment/gateway", "--replicas=0")
            # Nobody is there to end them.
            for name, where in nodes_of(deployed).items():
                if where.startswith("test-"):
                    deployed.gateway.kubectl("delete", "pod", name, "--force", "--grace-period=0")
    deployed.apply()
    deployed.rolled()


def nodes_of(deployed: Deployed) -> dict[str, str]:
    """The node of every gateway that has one."""
    specs = {thing["metadata"]["name"]: thing["spec"] for thing in deployed.gateway.pods()}
    return {name: spec["nodeName"] for name, spec in specs.items() if "nodeName" in spec}
