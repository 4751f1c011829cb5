"""Builds the manifest of a sandbox's pod from a profile and an order. Pure.

The defaults satisfy the ``restricted`` Pod Security Standard. ``pod_overrides`` is merged last and may change anything
in the spec, but not labels, annotations or the pod's name.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sshgate.config.model import Home, Profile
from sshgate.config.values import is_given
from sshgate.lifecycle import schema as labels
from sshgate.lifecycle.records import warm_metadata
from sshgate.providers.kubernetes.exec.remotecommand import CONTAINER
from sshgate.sandbox.interfaces import Order
from sshgate.sandbox.launcher import FOREVER

HOME = "home"

# The same user id in every sandbox: runAsNonRoot cannot check an image whose USER is a name.
USER_ID = 1000
# PID 1 ends at once on TERM (see KEEP_ALIVE); this bounds the time if an image breaks that.
GRACE_SECONDS = 2

# PID 1 of every sandbox. It must keep running, end at once on TERM, and reap orphaned processes where it can (tini).
# The image's own entrypoint is not used, since most images' programs end at once without a terminal; to use it,
# override the container's `command` with null. In an image with a shell but without sleep, it reads from a
# pseudo-terminal that nobody writes to.
_STAY = (
    "trap 'exit 0' TERM INT HUP;"
    f"if command -v tini >/dev/null 2>&1;then exec tini -- sleep {FOREVER};fi;"
    f"if command -v sleep >/dev/null 2>&1;then sleep {FOREVER} & wait $!;else read -r x </dev/ptmx;fi"
)
KEEP_ALIVE = ("/bin/sh", "-c", _STAY)

# A mounted home hides the image's files there (.bashrc and so on), so a new home gets a copy of them. Only an empty
# one, so that files its user has deleted do not come back. Errors of the copy do not prevent the login.
EMPTY_HOME = "/empty-home"
_SEED = f'case "$(ls -A {EMPTY_HOME})" in ""|lost+found)[ ! -d "$0" ]||cp -a "$0/." {EMPTY_HOME}/;;esac;exit 0'


@dataclass(slots=True)
class Owner:
    """The gateway that creates a pod: its name, final once the provider is open, and the id of this instance."""

    gateway: str
    instance: str


def template(profile: Profile) -> dict[str, Any]:
    """The pod spec that all sandboxes of this profile share, with the overrides merged."""
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": profile.image,
        "imagePullPolicy": profile.image_pull_policy,
        "command": list(KEEP_ALIVE),
        "resources": {"requests": dict(profile.resources.requests), "limits": dict(profile.resources.limits)},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "containers": [container],
        "enableServiceLinks": False,
        "hostname": "sandbox",
        "restartPolicy": "Never",
        "securityContext": {
            "runAsGroup": USER_ID,
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": GRACE_SECONDS,
    }
    if profile.network == "none":
        # A name that is looked up all the same is unknown at once: nobody answers there. Else it takes half a minute.
        spec |= {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["127.0.0.1"]}}
    if profile.node_selector:
        spec["nodeSelector"] = dict(profile.node_selector)
    if profile.tolerations:
        spec["tolerations"] = [dict(toleration) for toleration in profile.tolerations]
    if profile.runtime_class:
        spec["runtimeClassName"] = profile.runtime_class
    merged = merge(spec, profile.pod_overrides)
    assert isinstance(merged, dict)
    return merged


def template_hash(profile: Profile) -> str:
    """A hash of what its pods have in common, twelve hex digits; warm pods of another hash are outdated."""
    canonical = json.dumps(
        {**template(profile), **_network(profile)}, sort_keys=True, separators=(",", ":"), ensure_ascii=True
    )
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def claimed_pod(
    order: Order, owner: Owner, suffix: str, annotations: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The manifest of a pod created for ``order``.

    Args:
        owner: The gateway that creates it.
        suffix: Characters of a-z0-9 that make an ephemeral pod's name unique; unused for a named sandbox.
        annotations: Added to those of the owner: when it was claimed, when it expires (``lifecycle.requests``).
    """
    spec = template(order.profile)
    marks, notes = _metadata(order.profile, owner)
    marks |= {labels.STATE: labels.CLAIMED, labels.USER: labels.user_hash(order.user)}
    marks[labels.SESSION] = labels.label_value(order.session)
    if order.name is not None:
        marks[labels.NAME] = labels.label_value(order.name)
        if order.profile.home is not None or not (order.profile.warm or is_given(order.name)):
            # Others may start warm, with the template's: then it is the same whether the pool was empty or not.
            spec["hostname"] = hostname(order.name)
        if order.profile.home is not None:
            spec = _with_home(spec, home_claim(order.user, order.name), order.profile.home)
    # Enforced by the kubelet, even if all gateways are dead.
    spec.setdefault("activeDeadlineSeconds", max(1, int(order.profile.limits.max_lifetime)) + labels.KUBELET_GRACE)
    notes |= {labels.USER: labels.printable(order.user), **(annotations or {})}
    name = pod_name(order.user, suffix) if order.name is None else labels.named_pod(order.user, order.name)
    return manifest(name, spec, marks, notes)


def home_claim(user: str, name: str) -> str:
    """The name of the volume claim for the home of this user's sandbox ``name``."""
    return f"home-{labels.named_pod(user, name)}"


_OF_THE_SHELL = ("image", "imagePullPolicy", "resources", "securityContext")


def _with_home(spec: dict[str, Any], claim: str, home: Home) -> dict[str, Any]:
    """The spec with the home mounted and writable by the sandbox's user, by ``fsGroup``.

    An init container of the same image first fills an empty home.
    """
    volume = {"name": HOME, "persistentVolumeClaim": {"claimName": claim}}
    mount = {"name": HOME, "mountPath": home.path}
    security = {"fsGroup": USER_ID, "fsGroupChangePolicy": "OnRootMismatch"}
    merged = merge(
        {"volumes": [], "securityContext": {}, **spec},
        {"securityContext": security, "containers": [{"name": CONTAINER}]},
    )
    merged["volumes"] = [*merged["volumes"], volume]
    for container in merged["containers"]:
        if container["name"] == CONTAINER:
            seed = {key: container[key] for key in _OF_THE_SHELL if key in container}
            seed |= {"name": "home", "command": ["/bin/sh", "-c", _SEED, home.path]}
            seed["volumeMounts"] = [{"name": HOME, "mountPath": EMPTY_HOME}]
            merged["initContainers"] = [seed, *merged.get("initContainers", [])]
            container["volumeMounts"] = [*container.get("volumeMounts", []), mount]
    assert isinstance(merged, dict)
    return merged


def warm_pod(profile: Profile, owner: Owner, name: str) -> dict[str, Any]:
    """The manifest of a warm pod. It has no deadline; the claim sets one."""
    spec = template(profile)
    spec.pop("activeDeadlineSeconds", None)
    return manifest(name, spec, *_metadata(profile, owner))


def _metadata(profile: Profile, owner: Owner) -> tuple[dict[str, str], dict[str, str]]:
    """The labels and annotations of a new warm pod, on which a claimed one has more."""
    marks, notes = warm_metadata(profile.name, template_hash(profile), owner.gateway, owner.instance)
    return marks | _network(profile), notes


def _network(profile: Profile) -> dict[str, str]:
    return {labels.NETWORK: profile.network} if profile.network == "none" else {}


def lifetime(profile: Profile) -> float:
    """The maximum lifetime in seconds: the profile's limit, or its override of ``activeDeadlineSeconds`` if shorter."""
    own = profile.pod_overrides.get("activeDeadlineSeconds")
    limit = profile.limits.max_lifetime
    return min(limit, own) if isinstance(own, int) and own > 0 else limit


def manifest(name: str, spec: dict[str, Any], marks: dict[str, str], notes: dict[str, str]) -> dict[str, Any]:
    """A complete pod manifest with these labels and annotations."""
    marks = {"app.kubernetes.io/name": "sshgate-sandbox", **marks}
    metadata = {"name": name, "labels": marks, "annotations": notes}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def merge(base: Any, over: Any) -> Any:
    """Merge ``over`` into ``base``: objects deeply, lists of named objects by ``name``; all else is replaced.

    ``None`` in an object removes the key. Neither argument is changed.
    """
    if isinstance(base, Mapping) and isinstance(over, Mapping):
        merged = dict(base)
        for key, value in over.items():
            if value is None:
                merged.pop(key, None)
            else:
                merged[key] = merge(base[key], value) if key in base else merge({}, value)
        return merged
    if _named(base) and _named(over) and over:
        merged_list = {item["name"]: item for item in base}
        for item in over:
            merged_list[item["name"]] = merge(merged_list.get(item["name"], {}), item)
        return list(merged_list.values())
    if isinstance(over, Mapping):
        return {key: merge({}, value) for key, value in over.items() if value is not None}
    if isinstance(over, (list, tuple)):
        return [merge({}, item) for item in over]
    return over


def pod_name(user: str, suffix: str) -> str:
    """``sshgate-USER-SUFFIX``, with up to 24 characters of the user that are valid in a pod's name."""
    slug = re.sub(r"[^a-z0-9]+", "-", user.lower())[:24].strip("-")
    return f"sshgate-{slug}-{suffix}" if slug else f"sshgate-{suffix}"


def hostname(text: str) -> str:
    """A host name (RFC 1123 label) that resembles ``text``."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:63].strip("-") or "sandbox"


def _named(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, Mapping) and "name" in item for item in value)
