"""The gateway's rights: each is needed, and no request beyond them is granted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sshgate.lifecycle.schema import MANAGED, MANAGED_BY
from sshgate.providers.kubernetes.installation import NEEDED, NEEDED_FOR_HOMES
from tests.rig import cluster as rig_cluster
from tests.rig import rights
from tests.rig.cluster import BUSYBOX, Namespace
from tests.rig.deployed import Deployed
from tests.rig.gateway import configured
from tests.rig.manifests import COMMAND, GATEWAY_NAMESPACE, SANDBOX_NAMESPACE
from tests.rig.waiting import until

pytestmark = pytest.mark.cluster

Right = tuple[str, str, str]
RULES, _ = rights.role("anywhere")
GRANTED = sorted(rights.granted(RULES))
# Used where they are granted; test_optional_rights.py and test_fence.py show what is not there without each.
OPTIONAL = {
    ("watch", "", "events"), ("get", "", "configmaps"), ("list", "metrics.k8s.io", "pods"),
    ("list", "networking.k8s.io", "networkpolicies"),
}  # fmt: skip


NAMED = "app.kubernetes.io/name"
HOMES = {"home": {"storage_class": "local-path"}}


def kind_of(verb: str, resource: str) -> Right:
    """A right as a Role has it, of one as the gateway asks for it: resource[.group][/subresource]."""
    resource, slash, subresource = resource.partition("/")
    resource, _, group = resource.partition(".")
    return verb, group, f"{resource}{slash}{subresource}"


@pytest.fixture(scope="module")
def space(cluster: Path) -> Iterator[Namespace]:
    """A namespace whose role these tests change."""
    with rig_cluster.namespace() as place:
        yield place


def test_the_role_grants_what_the_gateway_asks_for_and_nothing_else() -> None:
    needed = NEEDED | NEEDED_FOR_HOMES
    asked = {kind_of(verb, resource) for resource, verbs in needed.items() for verb in verbs}
    assert asked | OPTIONAL == set(GRANTED)


@pytest.mark.parametrize("right", [right for right in GRANTED if right not in OPTIONAL], ids="-".join)
def test_without_one_right_the_gateway_does_not_start_and_names_it(
    right: Right, space: Namespace, tmp_path: Path
) -> None:
    rights.change(rights.without(rights.role(space.name)[0], right))
    try:
        ended = _serve(space, tmp_path)
    finally:
        rights.change(rights.role(space.name)[0])
    verb, group, resource = right
    assert ended.returncode == 1
    assert f"lacks: {verb} {resource}{'.' + group if group else ''};" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def _serve(space: Namespace, place: Path) -> subprocess.CompletedProcess[str]:
    gateway = configured(place, space, profiles={"default": HOMES})
    config = place / "sshgate.yaml"
    config.write_text(yaml.safe_dump(dict(gateway.settings)))
    argv = [sys.executable, "-m", "sshgate", "serve", "--config", str(config)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd=place, check=False)


# --- what the deployed gateway's own token can do ---


@pytest.fixture(scope="module")
def token(deployed: Deployed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kubeconfig with a token of the deployed gateway's account."""
    place = tmp_path_factory.mktemp("token") / "kubeconfig"
    return rights.kubeconfig(GATEWAY_NAMESPACE, "sshgate", deployed.gateway.kubeconfig, place)


def as_gateway(token: Path, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """kubectl with the gateway's token."""
    argv = [str(COMMAND), "kubectl", f"--kubeconfig={token}", *words]
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=60, check=False)


def pod(name: str, labels: dict[str, str]) -> dict[str, Any]:
    """A restricted pod that stays."""
    container = {
        "name": "shell",
        "image": BUSYBOX,
        "imagePullPolicy": "Never",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec: dict[str, Any] = {
        "containers": [container],
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


@pytest.fixture(scope="module")
def strangers(deployed: Deployed) -> Iterator[None]:
    """Two pods among the sandboxes that no gateway has made: one by another name, one under a sandbox's name."""
    names = ("stranger", "sshgate-pretender")
    for name in names:
        deployed.sandboxes.apply(pod(name, {}))
    for name in names:
        deployed.sandboxes.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=50s")
    yield
    for name in names:
        deployed.sandboxes.kubectl("delete", "pod", name)


@pytest.mark.parametrize(
    "words",
    [
        ("get", "secrets", "--namespace", GATEWAY_NAMESPACE),
        ("get", "secret", "sshgate-keys", "--namespace", GATEWAY_NAMESPACE),
        ("get", "secrets", "--namespace", SANDBOX_NAMESPACE),
        ("get", "configmaps", "--namespace", GATEWAY_NAMESPACE),
        ("get", "pods", "--namespace", GATEWAY_NAMESPACE),
        ("get", "pods", "--namespace", "kube-system"),
        ("get", "pods", "--all-namespaces"),
        ("get", "nodes"),
        ("get", "namespaces"),
        ("get", "roles", "--namespace", SANDBOX_NAMESPACE),
        ("create", "token", "sshgate", "--namespace", GATEWAY_NAMESPACE),
        ("create", "token", "default", "--namespace", SANDBOX_NAMESPACE),
        ("exec", "deployment/gateway", "--namespace", GATEWAY_NAMESPACE, "--", "true"),
        ("port-forward", "pod/stranger", ":80", "--namespace", SANDBOX_NAMESPACE),
        ("delete", "deployment", "gateway", "--namespace", GATEWAY_NAMESPACE),
        ("get", "--raw", f"/api/v1/namespaces/{SANDBOX_NAMESPACE}/pods/stranger/log"),
        ("get", "--raw", "/api/v1/nodes/localhost/proxy/pods"),
    ],
    ids=" ".join,
)
def test_the_gateways_token_is_refused_beyond_its_sandboxes(
    words: tuple[str, ...], token: Path, strangers: None
) -> None:
    refused = as_gateway(token, *words)
    assert refused.returncode != 0
    assert "forbidden" in refused.stderr.lower(), refused.stderr


def refused_by_guard(token: Path, *words: str, stdin: str | None = None) -> str:
    """The guard's message. It takes the API server some seconds to hear of a new policy."""

    def message() -> str:
        ended = as_gateway(token, "--namespace", SANDBOX_NAMESPACE, *words, stdin=stdin)
        return ended.stderr if "sshgate-sandboxes-only" in ended.stderr and ended.returncode else ""

    return until(message, 30, f"{words} being refused")


def test_the_gateway_enters_no_pod_that_is_called_otherwise_than_a_sandbox(token: Path, strangers: None) -> None:
    message = refused_by_guard(token, "exec", "stranger", "--", "true")
    assert "enters only pods whose names begin with sshgate-" in message
    # Exec shows the API server a name and no labels: this one passes.
    inside = ("exec", "sshgate-pretender", "--", "sh", "-c", "exit 0")
    entered = as_gateway(token, "--namespace", SANDBOX_NAMESPACE, *inside)
    assert entered.returncode == 0, entered.stderr


@pytest.mark.parametrize("name", ["stranger", "sshgate-pretender"])
def test_the_gateway_changes_and_deletes_no_pod_without_a_sandboxes_label(
    name: str, token: Path, strangers: None
) -> None:
    mark = {"metadata": {"labels": {MANAGED_BY: MANAGED}}}
    for words in (("delete", "pod", name), ("patch", "pod", name, f"--patch={json.dumps(mark)}")):
        assert "changes and deletes only pods labelled" in refused_by_guard(token, *words)


def test_the_gateway_makes_no_pod_that_does_not_say_what_it_is(token: Path) -> None:
    for bad in (pod("innocent", {MANAGED_BY: MANAGED}), pod("sshgate-x", {}), pod("sshgate-x", {MANAGED_BY: "me"})):
        assert "makes only pods called" in refused_by_guard(token, "create", "--filename=-", stdin=json.dumps(bad))


@pytest.fixture(scope="module")
def sandbox(deployed: Deployed) -> Iterator[str]:
    """A pod as the gateway makes them."""
    name = "sshgate-guarded"
    deployed.sandboxes.apply(pod(name, {MANAGED_BY: MANAGED, NAMED: "sshgate-sandbox"}))
    yield name
    deployed.sandboxes.kubectl("delete", "pod", name)


def test_a_sandbox_stays_a_sandbox(token: Path, sandbox: str) -> None:
    for labels, message in (
        ({MANAGED_BY: None}, "takes the label app.kubernetes.io/managed-by=sshgate off nothing"),
        ({MANAGED_BY: "me"}, "takes the label app.kubernetes.io/managed-by=sshgate off nothing"),
        ({NAMED: "sshgate"}, "no app.kubernetes.io/name but sshgate-sandbox"),
        ({NAMED: "traefik"}, "no app.kubernetes.io/name but sshgate-sandbox"),
    ):
        patch = json.dumps({"metadata": {"labels": labels}})
        assert message in refused_by_guard(token, "patch", "pod", sandbox, f"--patch={patch}")
    words = ("--namespace", SANDBOX_NAMESPACE, "patch", "pod", sandbox)
    good = as_gateway(token, *words, f"--patch={json.dumps({'metadata': {'labels': {'sshgate.dev/state': 'warm'}}})}")
    assert good.returncode == 0, good.stderr


def test_the_gateway_makes_no_pod_that_looks_like_itself(token: Path) -> None:
    named = pod("sshgate-x", {MANAGED_BY: MANAGED, NAMED: "sshgate"})
    words = ("create", "--filename=-")
    assert "no app.kubernetes.io/name but" in refused_by_guard(token, *words, stdin=json.dumps(named))
    for urgent in ("sshgate-gateway", "system-cluster-critical"):
        thing = pod("sshgate-x", {MANAGED_BY: MANAGED})
        thing["spec"]["priorityClassName"] = urgent
        assert "no priority class but sshgate-sandbox" in refused_by_guard(token, *words, stdin=json.dumps(thing))


def claim(name: str, labels: dict[str, str]) -> dict[str, Any]:
    """A volume claim that nothing binds."""
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "nowhere",
        "resources": {"requests": {"storage": "1Mi"}},
    }
    meta = {"name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": spec}


def test_the_gateway_makes_and_deletes_no_volume_claims_but_homes(token: Path, deployed: Deployed) -> None:
    deployed.sandboxes.apply(claim("precious", {}))
    try:
        assert "deletes only persistentvolumeclaims labelled" in refused_by_guard(token, "delete", "pvc", "precious")
    finally:
        deployed.sandboxes.kubectl("delete", "pvc", "precious")
    for bad in (claim("home-x", {}), claim("other", {MANAGED_BY: MANAGED})):
        words = ("create", "--filename=-")
        message = refused_by_guard(token, *words, stdin=json.dumps(bad))
        assert "makes only persistentvolumeclaims called home-..." in message
    words = ("--namespace", SANDBOX_NAMESPACE)
    good = as_gateway(token, *words, "create", "--filename=-", stdin=json.dumps(claim("home-x", {MANAGED_BY: MANAGED})))
    assert good.returncode == 0, good.stderr
    gone = as_gateway(token, *words, "delete", "pvc", "home-x", "--wait=false")
    assert gone.returncode == 0, gone.stderr


@pytest.mark.parametrize(
    "wish",
    [
        {"hostNetwork": True},
        {"hostPID": True},
        {"volumes": [{"name": "host", "hostPath": {"path": "/"}}]},
        {"securityContext": {"runAsUser": 0}},
        {"containers": [{"name": "c", "image": BUSYBOX, "securityContext": {"privileged": True}}]},
        {"containers": [{"name": "c", "image": BUSYBOX, "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}]},
    ],
    ids=lambda wish: next(iter(wish)),
)
def test_even_with_the_gateways_token_no_pod_gets_privileges(wish: dict[str, Any], token: Path) -> None:
    thing = pod("sshgate-bad", {MANAGED_BY: MANAGED})
    thing["spec"] |= wish
    words = ("--namespace", SANDBOX_NAMESPACE, "create", "--filename=-")
    assert "violates PodSecurity" in as_gateway(token, *words, stdin=json.dumps(thing)).stderr
