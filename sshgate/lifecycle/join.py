"""Named sandboxes: make, join, or wait until the old one is gone. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from sshgate.errors import BadRequest, StartFailed
from sshgate.lifecycle.records import Record, Stage, State
from sshgate.lifecycle.schema import label_value, user_hash


@dataclass(frozen=True, slots=True)
class Make:
    """There is none: claim a warm pod, or create one of the name ``schema.named_pod``, and take the name for it.

    Others may do the same at this moment: ``naming`` decides whose pod it is.
    """


@dataclass(frozen=True, slots=True)
class Join:
    """Send ``requests.attach_patch``. On 422 or 404 read the pod and decide again; without an answer send it again, as
    applying it twice does no harm."""

    record: Record


@dataclass(frozen=True, slots=True)
class Wait:
    """The previous sandbox of this name is ending: wait until its pod is gone, then decide again.

    ``delete``: delete the pod first, nobody else has done so yet.
    """

    record: Record
    delete: bool


def join(record: Record | None, user: str, name: str, profile: str | None) -> Make | Join | Wait:
    """Decide on the pod of this name, read from the API server or from the cache.

    The cache may lag: then the Lease, or the creation's 409, refuses a ``Make``, and the patch's ``test`` a ``Join``.

    Args:
        record: the pod that bears or has the name; ``None`` where there is none.
        profile: the profile that the user asked for; ``None`` accepts any.

    Raises:
        BadRequest: the sandbox has another profile.
        StartFailed: the pod of that name is not a sandbox of this user and name.
    """
    if record is None:
        return Make()
    if record.user_hash != user_hash(user) or record.sandbox != label_value(name) or record.state is State.UNKNOWN:
        # Otherwise anybody who may create pods could prepare one for a user to log in to.
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
