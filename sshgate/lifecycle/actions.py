"""The actions that plans return. Values only; the code that carries them out reports the outcome to the cache."""

from __future__ import annotations

from dataclasses import dataclass

from sshgate.lifecycle.records import Record


@dataclass(frozen=True, slots=True)
class Create:
    """Make a warm pod of this name.

    The cache expects it already. If the API server refuses, call ``Refiller.refused``. If the outcome is unknown,
    send the request again with the same name: 409 then means that the pod was made. Another name would make a second
    pod.
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
    """Look first whether any program runs in it; if so, send ``patches.seen_patch`` instead of deleting."""


@dataclass(frozen=True, slots=True)
class Detach:
    """The gateway instance ``life`` died with clients in this named sandbox: send ``patches.detach_patch``."""

    record: Record
    life: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be done for this pool before ``until`` (monotonic). Decide again then, or at the next change."""

    profile: str
    reason: str
    until: float


Action = Create | Delete | Detach | Wait
