"""What the lifecycle changes on a pod, as JSON Patches (RFC 6902). Pure.

Each begins with ``test`` operations, so that a patch which was decided on old knowledge changes nothing: the
API server answers 422, which means "no longer so, look again". A test for ``null`` holds where the key is missing,
which is how a pod that is being deleted is told apart: labels of such a pod can still be changed, and a claim
that "won" it would hand out a sandbox with seconds to live.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sshgate.lifecycle import schema as labels
from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.records import Record

Patch = list[dict[str, Any]]

LONGEST_DEADLINE = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Claim:
    """Who takes a sandbox, and for how long at most. ``session`` is unique to this claim, for ever."""

    user: str
    session: str
    gateway: str
    life: str
    lifetime: float
    detached: float | None = None
    """Seconds that a named sandbox is kept without clients, where its profile says."""


def claim_patch(record: Record, claim: Claim, now: Now) -> Patch:
    """Take a warm pod. Of any number of these on one pod exactly one can be applied.

    ``test`` is on the state and not on the resource version: a status written by the kubelet changes that, and
    would refuse good claims. The uid, because a name can be used again; the template, because the knowledge that
    this pod is of the wanted one may be old.
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
        *(_add(_note(key), value) for key, value in claim_annotations(claim, now).items()),
        _add("/spec/activeDeadlineSeconds", deadline(record, claim.lifetime, now)),
    ]


def claim_annotations(claim: Claim, now: Now) -> dict[str, str]:
    """The annotations of a claimed pod, be it taken or made for the claim."""
    return {
        labels.USER: labels.printable(claim.user),
        labels.LIFE: claim.life,
        labels.CLAIMED_AT: labels.timestamp(now.wall),
        labels.EXPIRES_AT: labels.timestamp(now.wall + claim.lifetime),
    }


def named_annotations(claim: Claim, now: Now) -> dict[str, str]:
    """The annotations of a pod that is made for a named sandbox: its maker is attached from the start."""
    kept = {} if claim.detached is None else {labels.KEPT_FOR: f"{math.ceil(claim.detached)}"}
    return claim_annotations(claim, now) | kept | {labels.ATTACHED + claim.life: labels.timestamp(now.wall)}


def deadline(record: Record, lifetime: float, now: Now) -> int:
    """``activeDeadlineSeconds`` for a pod that shall live ``lifetime`` from now: it counts from the pod's start.

    A pod that seems to come from the future (its node's clock is ahead) counts as just started.
    """
    started = record.created if record.started is None else record.started
    age = max(0.0, now.wall - started)
    return min(LONGEST_DEADLINE, max(1, math.ceil(age + lifetime) + labels.KUBELET_GRACE))


def attach_patch(record: Record, life: str, now: Now) -> Patch:
    """This gateway has clients in a named sandbox from now on."""
    return [
        _test("/metadata/uid", record.uid),
        _test("/metadata/deletionTimestamp", None),
        _test(_label(labels.STATE), labels.CLAIMED),
        _add(_note(labels.ATTACHED + life), labels.timestamp(now.wall)),
    ]


def detach_patch(record: Record, life: str, now: Now) -> Patch:
    """The last client of the gateway ``life`` has left, or that gateway has died.

    The mark is set to nothing before it is removed: removing what is not there fails, and two gateways may tidy
    up after a third at once.
    """
    return [
        _test("/metadata/uid", record.uid),
        _add(_note(labels.ATTACHED + life), ""),
        {"op": "remove", "path": _note(labels.ATTACHED + life)},
        _add(_note(labels.DETACHED_AT), labels.timestamp(now.wall)),
    ]


def seen_patch(record: Record, now: Now) -> Patch:
    """A program was found running in a named sandbox that nobody is attached to."""
    return [_test("/metadata/uid", record.uid), _add(_note(labels.LAST_SEEN), labels.timestamp(now.wall))]


def ended_patch(record: Record, who: str) -> Patch:
    """An operator is about to delete it."""
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
    """RFC 6901 section 3."""
    return key.replace("~", "~0").replace("/", "~1")
