"""What the plans ask to be done. Values only; whoever carries them out reports back to the book."""

from __future__ import annotations

from dataclasses import dataclass

from sshgate.lifecycle.records import Record


@dataclass(frozen=True, slots=True)
class Create:
    """Make a warm pod of this name.

    Already expected by the book. If the API server refuses: ``Refiller.refused``. If nobody knows: ask again
    with the same name; 409 then says that it was made. Never with another name, that would be a second pod.
    """

    name: str
    profile: str
    template: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a pod, with its uid as a precondition and, if ``untouched``, its resource version as well.

    ``untouched`` is for pods that somebody might take or join at this moment: the API server then answers 409
    and the pod stays. Already expected by the book; after a refusal call ``book.expectations.undelete``, and
    after 404 ``book.gone``.
    """

    record: Record
    reason: str
    untouched: bool
    unless_busy: bool = False
    """Look first whether a program other than the shell runs in it; if so send
    ``patches.seen_patch`` and call ``book.expectations.undelete``."""


@dataclass(frozen=True, slots=True)
class Detach:
    """The gateway ``life`` died with clients in this named sandbox: carry out ``patches.detach_patch``."""

    record: Record
    life: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be done for this pool before ``until`` (monotonic); look again then, or at the next event."""

    profile: str
    reason: str
    until: float


Action = Create | Delete | Detach | Wait
