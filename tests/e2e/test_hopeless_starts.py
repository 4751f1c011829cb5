"""A sandbox that cannot start ends the login within ten seconds: one sentence, a status, and no pod left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.rig import cluster as rig_cluster
from tests.rig.cluster import BUSYBOX, NO_SHELL, Namespace
from tests.rig.gateway import Gateway
from tests.rig.ssh import Ended, Ssh
from tests.rig.terminal import OnTerminal
from tests.rig.waiting import until

pytestmark = pytest.mark.cluster
LIMIT = 10.0

UserAt = Callable[[Gateway], Ssh]

PROFILES: dict[str, dict[str, Any]] = {
    "no-image": {"image": "not-there:latest"},
    "no-node": {"node_selector": {"made-of": "cheese"}},
    "no-room": {"resources": {"requests": {"cpu": "900"}, "limits": {"cpu": "900"}}},
    "no-shell": {"image": NO_SHELL, "pod_overrides": {"containers": [{"name": "shell", "command": ["/sleeper"]}]}},
    "bad-pod": {
        "pod_overrides": {"containers": [{"name": "shell", "securityContext": {"allowPrivilegeEscalation": True}}]}
    },
    "small": {"image": BUSYBOX},
}


@pytest.fixture(scope="module")
def ssh(make_gateway: Callable[..., Gateway], cluster: object, user_at: UserAt) -> Ssh:
    """A user at a gateway whose profiles lead nowhere."""
    extended = {name: {"extends": "default", **profile} for name, profile in PROFILES.items()}
    return user_at(make_gateway("kubernetes", profiles=extended))


def refused(ssh: Ssh, space: Namespace, profile: str | None = None) -> Ended:
    """Try to log in; the refusal, which came in time, says one sentence and has left no pod."""
    before = set(space.living())
    began = time.monotonic()
    ended = (ssh.as_user(f"dev+{profile}") if profile else ssh).run("echo in")
    assert time.monotonic() - began < LIMIT
    assert ended.out == b""
    assert ended.err.count(b"\n") == 1, ended.err
    assert ended.err.startswith(b"sshgate: ")
    until(lambda: set(space.living()) <= before, 20, "no pod being left")
    return ended


def test_an_image_that_is_not_there(ssh: Ssh, namespace: Namespace) -> None:
    ended = refused(ssh, namespace, "no-image")
    assert ended.status == 255
    assert b"not-there:latest" in ended.err


def test_a_node_that_is_not_there(ssh: Ssh, namespace: Namespace) -> None:
    ended = refused(ssh, namespace, "no-node")
    assert ended.status == 255
    assert b"node" in ended.err


def test_more_than_any_node_has(ssh: Ssh, namespace: Namespace) -> None:
    ended = refused(ssh, namespace, "no-room")
    assert ended.status == 255
    assert b"cpu" in ended.err


def test_a_pod_that_the_namespace_does_not_allow(ssh: Ssh, namespace: Namespace) -> None:
    ended = refused(ssh, namespace, "bad-pod")
    assert ended.status == 255
    assert b"restricted" in ended.err


def test_an_image_without_a_shell(ssh: Ssh, namespace: Namespace) -> None:
    ended = refused(ssh, namespace, "no-shell")
    assert ended.status in (126, 127)


def test_an_image_with_a_small_shell_will_do(ssh: Ssh) -> None:
    small = ssh.as_user("dev+small")
    ended = small.run("echo in; exit 3")
    assert (ended.status, ended.out) == (3, b"in\n")
    assert small.run("no-such-command").status == 127


def test_sftp_is_there_without_a_server_in_the_image(ssh: Ssh) -> None:
    ended = ssh.as_user("dev+small").run("sftp", options=("-s",), stdin=b"\0\0\0\5\1\0\0\0\3")
    assert (ended.status, ended.err) == (0, b"")
    assert ended.out[4:9] == b"\2\0\0\0\3"  # the version of the protocol, agreed upon


@pytest.fixture
def own_space(cluster: object) -> Iterator[Namespace]:
    """A namespace whose rules one test may change."""
    with rig_cluster.namespace() as space:
        yield space


def gateway_in(space: Namespace, gateway: Callable[..., Gateway], **more: Any) -> Gateway:
    return gateway("kubernetes", sandbox={"namespace": space.name, "kubeconfig": str(space.gateway)}, **more)


def test_a_quota_that_is_full(own_space: Namespace, gateway: Callable[..., Gateway], user_at: UserAt) -> None:
    ssh = user_at(gateway_in(own_space, gateway))
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"}, "spec": {"hard": {"pods": "0"}}}
    own_space.apply(quota)
    until(lambda: '"used"' in own_space.kubectl("get", "resourcequota", "full", "--output=json"), 20, "the quota")
    ended = refused(ssh, own_space)
    assert ended.status == 255
    assert b"quota" in ended.err


def test_an_exec_that_is_denied(own_space: Namespace, gateway: Callable[..., Gateway], user_at: UserAt) -> None:
    ssh = user_at(gateway_in(own_space, gateway))
    name = own_space.name
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CONNECT"], "resources": ["pods/exec"]}]
    where = {"matchLabels": {"kubernetes.io/metadata.name": name}}
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"namespaceSelector": where, "resourceRules": rules},
            "validations": [{"expression": "false", "message": "nobody enters a pod here"}],
        },
    }
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    }
    own_space.apply(policy)
    try:
        own_space.apply(binding)
        # The API server acts on it some moments later.
        until(lambda: ssh.run("true", limit=20).status != 0, 30, "the policy")
        ended = refused(ssh, own_space)
        assert ended.status in (126, 254, 255)
        assert b"nobody enters a pod here" in ended.err or b"denied" in ended.err
    finally:
        for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
            own_space.kubectl("delete", kind, name, "--ignore-not-found")


def test_a_user_who_gives_up_while_it_starts_leaves_nothing(
    own_space: Namespace, gateway: Callable[..., Gateway], user_at: UserAt
) -> None:
    waiting = {"default": {"node_selector": {"made-of": "cheese"}, "limits": {"unschedulable": "60s"}}}
    ssh = user_at(gateway_in(own_space, gateway, profiles=waiting))
    with OnTerminal(ssh.argv(options=("-tt",))) as terminal:
        terminal.expect(b"nodes match")
        assert own_space.living()
        terminal.type(b"\x03")
        assert terminal.until_end() == 130
    until(lambda: not own_space.living(), 20, "no pod being left")


def test_a_namespace_that_is_not_there_is_reported(cluster: object, gateway: Callable[..., Gateway]) -> None:
    with pytest.raises(AssertionError, match="sshgate-nowhere"):  # it does not even start, and says why
        gateway("kubernetes", sandbox={"namespace": "sshgate-nowhere"})
