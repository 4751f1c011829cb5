"""The pod of a sandbox: safe defaults, overrides, and names that never break a label."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshgate.config.model import Home, Profile, ProfileLimits, Resources
from sshgate.lifecycle import schema as keys
from sshgate.lifecycle.schema import KUBELET_GRACE
from sshgate.providers.kubernetes import podspec
from sshgate.providers.kubernetes.podspec import Owner
from sshgate.sandbox.interfaces import Order

OWNER = Owner("gateway-1", "a1b2")
DNS_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z")
LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?\Z")


def pod(profile: Profile | None = None, user: str = "alice", name: str | None = None) -> dict[str, Any]:
    return podspec.claimed_pod(Order(profile or Profile(), user, "0123456789", name), OWNER, "abc123")


def container(profile: Profile) -> dict[str, Any]:
    (only,) = podspec.template(profile)["containers"]
    assert isinstance(only, dict)
    return only


def test_the_defaults_are_the_restricted_pod_security_profile() -> None:
    spec = podspec.template(Profile())
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 1000
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    security = container(Profile())["securityContext"]
    assert security == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_the_kubelet_enforces_the_longest_lifetime() -> None:
    profile = Profile(limits=ProfileLimits(max_lifetime=90.5))
    assert pod(profile)["spec"]["activeDeadlineSeconds"] == 90 + KUBELET_GRACE
    assert pod(Profile(limits=ProfileLimits(max_lifetime=0.2)))["spec"]["activeDeadlineSeconds"] == 1 + KUBELET_GRACE
    assert "activeDeadlineSeconds" not in podspec.template(profile), "a warm pod must not age"


def test_a_profile_chooses_its_node() -> None:
    toleration = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    profile = Profile(
        node_selector={"accelerator": "nvidia-t4"},
        tolerations=(toleration,),
        runtime_class="gvisor",
        resources=Resources(limits={"nvidia.com/gpu": "1"}),
    )
    spec = podspec.template(profile)
    assert spec["nodeSelector"] == {"accelerator": "nvidia-t4"}
    assert spec["tolerations"] == [toleration]
    assert spec["runtimeClassName"] == "gvisor"
    assert container(profile)["resources"]["limits"] == {"nvidia.com/gpu": "1"}


def test_a_pod_says_whose_it_is_without_the_name_in_a_label() -> None:
    metadata = pod(user="a.b@c")["metadata"]
    assert metadata["labels"][keys.USER] == keys.user_hash("a.b@c")
    assert metadata["annotations"][keys.USER] == "a.b@c"
    assert metadata["labels"][keys.STATE] == "claimed"
    assert keys.NAME not in metadata["labels"]


def test_a_named_sandbox_carries_its_name() -> None:
    manifest = pod(name="work")
    assert manifest["metadata"]["labels"][keys.NAME] == "work"
    assert manifest["spec"]["hostname"] == "work"


ODD_NAMES = [
    "",
    "../x",
    "$(x)",
    "a\nb",
    "a\0b",
    "a" * 300,
    "_a",
    "a_",
    "a.b@c",
    "ALICE",
    "älice",
    "\u0430lice",
    "-",
    "\udcff",
]


def test_a_home_is_filled_by_the_same_image_under_the_same_rules_before_the_sandbox_starts() -> None:
    overrides = {"containers": [{"name": "shell", "image": "mine:1"}], "initContainers": [{"name": "own"}]}
    profile = Profile(home=Home(path="/home/me"), pod_overrides=overrides)
    spec = pod(profile, name="work")["spec"]
    seed, own = spec["initContainers"]
    (shell,) = spec["containers"]
    assert own == {"name": "own"}
    for key in ("image", "imagePullPolicy", "resources", "securityContext"):
        assert seed[key] == shell[key]
    assert seed["command"][-1] == "/home/me"
    assert shell["volumeMounts"] == [{"name": "home", "mountPath": "/home/me"}]
    (mount,) = seed["volumeMounts"]
    assert mount["name"] == "home"
    assert mount["mountPath"] not in ("/home/me", "/")
    assert "initContainers" not in pod(Profile(home=Home()))["spec"], "an unnamed sandbox has no home"


@pytest.mark.parametrize("user", ODD_NAMES)
def test_no_user_name_breaks_a_label_or_a_pod_name(user: str) -> None:
    metadata = pod(user=user)["metadata"]
    assert DNS_NAME.match(metadata["name"])
    assert len(metadata["name"]) <= 63
    assert all(LABEL.match(value) for value in metadata["labels"].values())
    for value in metadata["annotations"].values():
        assert value.encode("utf-8").decode().isprintable()


@given(st.text(max_size=400), st.text(max_size=400))
def test_labels_of_different_texts_differ_and_are_valid(one: str, other: str) -> None:
    assert LABEL.match(keys.label_value(one))
    assert (keys.label_value(one) == keys.label_value(other)) == (one == other)
    assert (keys.user_hash(one) == keys.user_hash(other)) == (one == other)


# --- pod_overrides ---


def overridden(overrides: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return podspec.template(Profile(pod_overrides=overrides, **fields))


def test_overrides_merge_objects_deeply() -> None:
    spec = overridden({"securityContext": {"runAsUser": 5000}})
    assert spec["securityContext"]["runAsUser"] == 5000
    assert spec["securityContext"]["runAsNonRoot"] is True


def test_overrides_merge_the_shell_container_by_name_and_add_others() -> None:
    sidecar = {"name": "sidecar", "image": "s:1"}
    spec = overridden({"containers": [{"name": "shell", "tty": True}, sidecar]})
    shell, added = spec["containers"]
    assert shell["name"] == "shell"
    assert shell["tty"] is True
    assert shell["image"] == Profile().image
    assert added == sidecar


def test_overrides_replace_lists_without_names() -> None:
    tolerations = ({"key": "a", "operator": "Exists"},)
    spec = overridden({"tolerations": [{"key": "b", "operator": "Exists"}]}, tolerations=tolerations)
    assert spec["tolerations"] == [{"key": "b", "operator": "Exists"}]


def test_null_removes_so_that_the_images_own_entrypoint_can_be_had() -> None:
    spec = overridden({"containers": [{"name": "shell", "command": None}], "hostname": None})
    assert "command" not in spec["containers"][0]
    assert "hostname" not in spec


def test_overrides_win_over_the_deadline() -> None:
    assert pod(Profile(pod_overrides={"activeDeadlineSeconds": 7}))["spec"]["activeDeadlineSeconds"] == 7


def test_merging_changes_neither_side() -> None:
    overrides = {"containers": [{"name": "shell", "env": [{"name": "A", "value": "1"}]}]}
    profile = Profile(pod_overrides=overrides)
    first = podspec.template(profile)
    first["containers"][0]["env"][0]["value"] = "changed"
    assert podspec.template(profile)["containers"][0]["env"] == [{"name": "A", "value": "1"}]


# --- the template's hash ---


def test_the_hash_follows_the_spec_and_nothing_else() -> None:
    profile = Profile(node_selector={"a": "1", "b": "2"})
    assert podspec.template_hash(profile) == podspec.template_hash(replace(profile, name="other", warm=7, allow=("x",)))
    assert podspec.template_hash(profile) == podspec.template_hash(replace(profile, node_selector={"b": "2", "a": "1"}))
    assert podspec.template_hash(profile) != podspec.template_hash(replace(profile, image="other:1"))
    assert podspec.template_hash(profile) != podspec.template_hash(
        replace(profile, pod_overrides={"priorityClassName": "low"})
    )


def test_every_pod_of_a_profile_has_the_hash_of_its_template_for_every_user() -> None:
    profile = Profile()
    labels = [pod(profile, user)["metadata"]["labels"] for user in ("alice", "bob")]
    labels.append(pod(profile, name="work")["metadata"]["labels"])
    assert {label[keys.TEMPLATE] for label in labels} == {podspec.template_hash(profile)}


def test_pods_without_a_network_have_a_label_that_policies_know_and_are_no_others() -> None:
    """Also where overrides make their specs alike: a warm pod with a network is never claimed for a login without."""
    none = Profile(network="none")
    warm = podspec.warm_pod(none, OWNER, "sshgate-warm-default-1")
    for one in (pod(none), pod(none, name="work"), warm):
        assert one["metadata"]["labels"][keys.NETWORK] == "none"
        assert one["spec"]["dnsConfig"] == {"nameservers": ["127.0.0.1"]}
    assert keys.NETWORK not in pod(Profile())["metadata"]["labels"]
    alike = replace(none, pod_overrides={"dnsPolicy": None, "dnsConfig": None})
    assert podspec.template(alike) == podspec.template(Profile())
    assert podspec.template_hash(alike) != podspec.template_hash(Profile())
