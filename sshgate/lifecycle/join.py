"""Named sandboxes: make, join, or wait until the old one is gone. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sshgate.errors import BadRequest, StartFailed
from sshgate.lifecycle.records import Record, Stage, State
from sshgate.lifecycle.schema import label_value, user_hash


@dataclass(frozen=True, slots=True)
class Make:
    """There is none: create it under ``labels.named_pod``, cold.

    Not from the pool: two gateways would take two warm pods for one name, and nothing in the API server would
    stop them. A pod's name can exist once; of two that create it one is told 409, reads the pod and joins.
    """


@dataclass(frozen=True, slots=True)
class Join:
    """Send ``patches.attach_patch``. 422 or 404: read the pod and decide again; no answer: send it again (it
    may be applied twice)."""

    record: Record


@dataclass(frozen=True, slots=True)
class Wait:
    """The last one of this name is going: wait until its pod is gone, then decide again. ``delete``: it has
    ended and nobody has deleted it yet, do so."""

    record: Record
    delete: bool


def join(record: Record | None, user: str, name: str, profile: str | None) -> Make | Join | Wait:
    """Decide on the pod called ``labels.named_pod(user, name)``, read from the API server or from the book.

    ``profile`` is set only if the user asked for one. Raises ``BadRequest`` if the sandbox is of another
    profile, ``StartFailed`` if the pod of that name is not what it should be. From the book, ``Make`` may be
    old knowledge: the creation's 409 says so. ``Join`` may be too: the patch's ``test`` says so.
    """
    if record is None:
        return Make()
    if record.user_hash != user_hash(user) or record.sandbox != label_value(name) or record.state is State.UNKNOWN:
        # Whoever may label pods could otherwise have a user log in to a pod that was prepared for it.
        raise StartFailed(f"the pod {record.name} is in the way of your sandbox {name!r}; ask your operator.")
    if record.deleting:
        return Wait(record, delete=False)
    if record.stage is Stage.FINISHED:
        return Wait(record, delete=True)
    if record.state is not State.CLAIMED:
        return Wait(record, delete=not record.attached)
    if profile is not None and record.profile != label_value(profile):
        raise BadRequest(
            f"your sandbox {name!r} has the profile {record.profile!r}; log in without '+{profile}', or end it first."
        )
    return Join(record)


def mine(records: list[Record], user: str) -> list[Record]:
    """The sandboxes of this user that are there, oldest first: by the hash label, which only gateways write."""
    found = [one for one in records if one.user_hash == user_hash(user) and not one.deleting]
    return oldest_first(one for one in found if one.state is not State.WARM)


def oldest_first(records: Iterable[Record]) -> list[Record]:
    """By when they were claimed: that is written to the millisecond, a pod's creation to the second."""
    return sorted(records, key=lambda one: (one.claimed_at or one.created, one.name))
