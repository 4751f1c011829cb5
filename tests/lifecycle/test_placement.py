"""Which node: with a GPU, closed, or full. Nodes made here are objects only; nothing runs on them."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from sshgate.lifecycle import schema as labels
from tests.lifecycle.place import Place, mark, names, staying
from tests.rig.cluster import COMMAND
from tests.rig.waiting import until

pytestmark = pytest.mark.cluster

GPU_TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
# Of nodes that are not for the tests beside these.
OURS = {"key": "sshgate-test", "value": "present", "effect": "NoSchedule"}


class Node:
    """A node without a machine: the scheduler binds to it, and nobody starts what it has bound."""

    def __init__(self, name: str, capacity: dict[str, str], taints: list[dict[str, str]]) -> None:
        self.name = name
        self.capacity = {"cpu": "8", "memory": "32Gi", "pods": "20", "ephemeral-storage": "100Gi", **capacity}
        self.taints = taints

    def appear(self) -> None:
        """Join the cluster, ready for the next 40 seconds or so."""
        spec = {"taints": self.taints}
        metadata = {"name": self.name, "labels": {"sshgate-test": self.name, "accelerator": "nvidia-t4"}}
        _kubectl("apply", "--filename=-", stdin=json.dumps(_object(metadata, spec)))
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": now, "lastTransitionTime": now}
        status = {"capacity": self.capacity, "allocatable": self.capacity, "conditions": [ready]}
        patch = json.dumps({"status": status})
        _kubectl("patch", "node", self.name, "--subresource=status", "--type=merge", f"--patch={patch}")
        # The node controller taints what it has not heard of; now it has.
        keep = json.dumps({"spec": spec})
        _kubectl("patch", "node", self.name, "--type=merge", f"--patch={keep}")

    def vanish(self) -> None:
        """Leave the cluster."""
        _kubectl("delete", "node", self.name, "--ignore-not-found")


@pytest.fixture
def node() -> Iterator[Callable[..., Node]]:
    """Makes nodes that are gone at the end."""
    made: list[Node] = []

    def make(capacity: dict[str, str] | None = None, *taints: dict[str, str]) -> Node:
        made.append(Node(f"sshgate-test-{secrets.token_hex(3)}", capacity or {}, list(taints)))
        return made[-1]

    yield make
    for one in made:
        one.vanish()


def gpu_profile(node: Node) -> dict[str, Any]:
    """As the example configuration has it, for this one node."""
    return {
        "extends": "default",
        "allow": ["dev"],
        "warm": 0,
        "node_selector": {"accelerator": "nvidia-t4", "sshgate-test": node.name},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "resources": {"limits": {"nvidia.com/gpu": "1"}},
        "limits": {"unschedulable": "25s", "start": "40s"},
    }


def test_a_login_with_a_gpu_waits_for_its_node_is_bound_to_it_and_can_be_given_up(
    place: Place, node: Callable[..., Node]
) -> None:
    """No manifest changes when the node joins."""
    t4 = node({"nvidia.com/gpu": "1"}, GPU_TAINT)
    gateway = place.gateway(profiles={"gpu": gpu_profile(t4)})
    user = place.user(gateway, "dev+gpu")
    client = subprocess.Popen(
        user.argv(options=("-tt",)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert client.stderr is not None
        assert client.stdin is not None
        output = b""
        while b"of 1 nodes match" not in output:
            more = client.stderr.read1(4096)  # type: ignore[attr-defined]
            assert more, output
            output += more
        assert b"waiting for a node: 0 of 1 nodes match" in output
        (pod,) = place.pods(labels.CLAIMED)
        assert pod["spec"].get("nodeName") is None
        t4.appear()
        until(lambda: place.pods(labels.CLAIMED)[0]["spec"].get("nodeName") == t4.name, 20, "the pod being bound")
        bound = place.pods(labels.CLAIMED)[0]
        assert bound["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
        client.stdin.write(b"\x03")
        client.stdin.flush()
        client.communicate(timeout=20)
        assert client.returncode == 130
        until(lambda: not place.pods(), 15, "Ctrl-C ending the pod")
    finally:
        client.kill()
        client.communicate()
        t4.vanish()
        # Nobody runs on that node who could say that the pod has ended.
        place.space.kubectl("delete", "pods", "--all", "--force", "--grace-period=0", "--wait=false")


def test_a_gpu_is_for_those_whom_the_policy_allows(place: Place, node: Callable[..., Node]) -> None:
    profile = {**gpu_profile(node()), "allow": ["ada"]}
    gateway = place.gateway(profiles={"gpu": profile})
    refused = place.user(gateway, "dev+gpu").run("true")
    assert refused.status == 254
    assert refused.err == b"sshgate: there is no profile 'gpu' for you, yours are: default.\n"
    assert place.pods() == []


def test_a_pool_on_a_node_that_is_closed_waits_and_goes_on_when_it_opens(
    place: Place, node: Callable[..., Node]
) -> None:
    closed = node({}, OURS)
    closed.appear()
    _kubectl("cordon", closed.name)
    tolerations = [{"key": "sshgate-test", "operator": "Exists", "effect": "NoSchedule"}]
    chosen = {"node_selector": {"sshgate-test": closed.name}, "tolerations": tolerations, "warm": 2}
    gateway = place.gateway(profiles={"there": {"extends": "default", **chosen}})
    until(lambda: "Unschedulable" in gateway.log(), 30, "the operator being told")
    waiting = names(place.pods(labels.WARM))
    assert waiting
    closed.appear()
    _kubectl("uncordon", closed.name)
    until(
        lambda: len([pod for pod in place.pods(labels.WARM) if pod["spec"].get("nodeName") == closed.name]) == 2,
        90,
        "the pool being bound to the node",
    )
    assert waiting <= names(place.pods(labels.WARM)), "those that waited were kept, not made again and again"
    gateway.stop()
    closed.vanish()
    place.space.kubectl("delete", "pods", "--all", "--force", "--grace-period=0", "--wait=false")


@pytest.mark.alone
def test_a_full_node_gives_a_warm_sandboxs_room_to_a_login(place: Place) -> None:
    """Three sandboxes are more than it has."""
    allocatable = json.loads(place.space.kubectl("get", "nodes", "--output=json"))["items"][0]["status"]["allocatable"]
    cores = allocatable["cpu"]
    millicores = int(cores[:-1]) if cores.endswith("m") else 1000 * int(cores)
    share = {"cpu": f"{millicores * 2 // 5}m"}
    half = {"resources": {"requests": share, "limits": share}}
    gateway = place.gateway(
        profile={**half, "warm": 2, "limits": {"unschedulable": "20s"}},
        profiles={"other": {"extends": "default", "warm": 0, "pod_overrides": {"hostname": "other"}}},
    )
    place.filled(2)
    with staying(place.user(gateway, "dev+other")):
        (taken,) = place.pods(labels.CLAIMED)
        assert mark(taken, labels.PROFILE) == "other"
    place.filled(2)


def _object(metadata: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec}


def _kubectl(*words: str, stdin: str | None = None) -> None:
    subprocess.run([COMMAND, "kubectl", *words], input=stdin, text=True, check=True, capture_output=True, timeout=60)
