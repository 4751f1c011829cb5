"""What the lifecycle requests of the API server: creations, deletions and JSON Patches (RFC 6902). Pure.

Each patch begins with ``test`` operations, so that one which was decided on old knowledge changes nothing: the API
server answers 422, and the caller reads the pod again. A test for ``null`` succeeds where the key is missing; that is
how claims avoid a pod that is being deleted. The labels of such a pod can still be changed, so a claim without this
test could win a sandbox that has only seconds left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sshgate.lifecycle import schema as labels
from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.records import Record

Patch = list[dict[str, Any]]

LONGEST_DEADLINE = 2**31 - 1


class Answer(Enum):
    """The outcome of a request that did not return a pod."""

    REFUSED = "refused"
    """422 or 409: a precondition failed and nothing was applied."""
    MISSING = "missing"
    """404: there is no such pod."""
    UNKNOWN = "unknown"
    """Time-out, broken connection, 5xx, 429: it may have been applied, or may still be."""


@dataclass(frozen=True, slots=True)
class Create:
    """Make a warm pod of this name.

    The cache expects it already. Call ``Refiller.answered`` once it was made, ``refused`` if the API server refuses it.
    If the outcome is unknown, call ``unanswered``: the request is then decided again with the same name, and 409 means
    that the pod was made. Another name would make a second pod.
    """

    name: str
    profile: str
    template: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a pod, with its uid as a precondition and, if ``untouched``, its resource version as well.

    ``untouched`` is for pods that a login might claim or join at this moment: the API server then answers 409 and the
    pod stays. The cache expects the deletion already; after a refusal call ``PodCache.expectations.undelete``, after
    404 ``PodCache.gone``.
    """

    record: Record
    reason: str
    untouched: bool
    unless_busy: bool = False
    """Look first whether any program runs in it; if so, send ``requests.seen_patch`` instead of deleting."""


@dataclass(frozen=True, slots=True)
class Detach:
    """The gateway instance died with clients in this named sandbox: send ``requests.detach_patch``."""

    record: Record
    instance: str


@dataclass(frozen=True, slots=True)
class Claim:
    """Who claims a sandbox, and for how many seconds at most. ``session`` is never used for another claim."""

    user: str
    session: str
    gateway: str
    instance: str
    lifetime: float
    detached: float | None = None
    """Seconds for which a named sandbox is kept without clients; ``None`` writes nothing on the pod."""
    profile: str | None = None
    """By which the sandbox is used, also if the pod was kept ready for another profile of the same template."""


def claim_patch(record: Record, claim: Claim, now: Now) -> Patch:
    """Claim a warm pod. Of any number of these patches on one pod exactly one can be applied.

    It tests the state and not the resource version, because each status update of the kubelet changes the version and
    would refuse good claims. It tests the uid because a name can be used again, and the template because the cached
    one may be out of date.
    """
    return [
        _test("/metadata/uid", record.uid),
        _test("/metadata/deletionTimestamp", None),
        _test(_label(labels.STATE), labels.WARM),
        _test(_label(labels.TEMPLATE), record.template),
        {"op": "replace", "path": _label(labels.STATE), "value": labels.CLAIMED},
        _add(_label(labels.USER), labels.user_hash(claim.user)),
        _add(_label(labels.SESSION), labels.label_value(claim.session)),
        _add(_label(labels.GATEWAY), labels.label_value(claim.gateway)),
        # Who joins a named sandbox later gets what this profile allows.
        *([_add(_label(labels.PROFILE), labels.label_value(claim.profile))] if claim.profile is not None else ()),
        *(_add(_note(key), value) for key, value in claim_annotations(claim, now).items()),
        _add("/spec/activeDeadlineSeconds", deadline(record, claim.lifetime, now)),
    ]


def claim_annotations(claim: Claim, now: Now) -> dict[str, str]:
    """The annotations of a claimed pod, whether it was warm or is made for the claim."""
    kept = {} if claim.detached is None else {labels.KEPT_FOR: f"{math.ceil(claim.detached)}"}
    return {
        labels.USER: labels.printable(claim.user),
        labels.INSTANCE: claim.instance,
        labels.CLAIMED_AT: labels.timestamp(now.wall),
        labels.EXPIRES_AT: labels.timestamp(now.wall + claim.lifetime),
        **kept,
    }


def named_annotations(claim: Claim, now: Now) -> dict[str, str]:
    """The annotations of a pod that is made for a named sandbox. Its maker is attached from the start."""
    return claim_annotations(claim, now) | {labels.ATTACHED + claim.instance: labels.timestamp(now.wall)}


def deadline(record: Record, lifetime: float, now: Now) -> int:
    """``activeDeadlineSeconds`` for a pod that may run ``lifetime`` seconds from now; it counts from the pod's start.

    A pod whose start lies in the future, because its node's clock is ahead, counts as just started.
    """
    started = record.created if record.started is None else record.started
    age = max(0.0, now.wall - started)
    return min(LONGEST_DEADLINE, max(1, math.ceil(age + lifetime) + labels.KUBELET_GRACE))


def attach_patch(record: Record, instance: str, now: Now) -> Patch:
    """Mark a named sandbox as having clients of the gateway ``instance``, and write its name on its pod.

    A pod that was warm bears no name before its first attachment: until then it is its claim's, as any other.
    """
    return [
        _test("/metadata/uid", record.uid),
        _test("/metadata/deletionTimestamp", None),
        _test(_label(labels.STATE), labels.CLAIMED),
        *([_add(_label(labels.NAME), record.sandbox)] if record.sandbox is not None else []),
        _add(_note(labels.ATTACHED + instance), labels.timestamp(now.wall)),
    ]


def detach_patch(record: Record, instance: str, now: Now) -> Patch:
    """Remove the mark of ``instance``: its last client has left, or that gateway instance has died.

    The mark is set to an empty value before it is removed, because removing a missing key fails and two gateways may
    clean up after a third at the same time.
    """
    return [
        _test("/metadata/uid", record.uid),
        _add(_note(labels.ATTACHED + instance), ""),
        {"op": "remove", "path": _note(labels.ATTACHED + instance)},
        _add(_note(labels.DETACHED_AT), labels.timestamp(now.wall)),
    ]


def seen_patch(record: Record, now: Now) -> Patch:
    """Note that a program was found running in a named sandbox that has no clients."""
    return [_test("/metadata/uid", record.uid), _add(_note(labels.LAST_SEEN), labels.timestamp(now.wall))]


def ended_patch(record: Record, who: str) -> Patch:
    """Note which operator is about to delete the sandbox."""
    return [_test("/metadata/uid", record.uid), _add(_note(labels.ENDED_BY), labels.printable(who))]


def _test(path: str, value: Any) -> dict[str, Any]:
    return {"op": "test", "path": path, "value": value}


def _add(path: str, value: Any) -> dict[str, Any]:
    return {"op": "add", "path": path, "value": value}


def _label(key: str) -> str:
    return "/metadata/labels/" + _escaped(key)


def _note(key: str) -> str:
    return "/metadata/annotations/" + _escaped(key)


def _escaped(key: str) -> str:
    """A key as part of a JSON Pointer (RFC 6901 section 3)."""
    return key.replace("~", "~0").replace("/", "~1")
