"""Which pod is the sandbox of a name: the decisions of one login, whatever the API server answers. Pure.

Each name in use has a Lease whose owner is a pod: that pod is the sandbox. A Lease's name can exist once, so of two
gateways that create it for different pods one gets 409 and joins the other's. These rules make it safe:

* Nobody enters a pod that does not have its name's Lease. One that was warm bears the name only once it has the Lease.
* A Lease is void when its pod is gone, is being deleted or has ended, all of which are final. The garbage collector
  deletes it then, at its own time, and so does the next login of this name. A Lease is never given to another pod: the
  collector, which deletes by uid, might have decided on the Lease's old owner.
* So a login that reads a Lease looks at its pod, and deletes a void one by uid and version before making another.
* **No answer**: read the Lease. A creation that still arrives makes the Lease that is wanted, or is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from sshgate.lifecycle.claim import MOST_UNKNOWN, GiveUp
from sshgate.lifecycle.records import Record
from sshgate.lifecycle.requests import Answer

# How often one login creates the Lease: others must have been faster, and their pods gone, each time.
MOST_TRIES = 5


@dataclass(frozen=True, slots=True)
class Holder:
    """A name's Lease as it was read or made, and the pod that owns it."""

    uid: str
    version: str
    pod: str
    pod_uid: str


@dataclass(frozen=True, slots=True)
class TakeName:
    """Create the Lease with this pod as its owner. Report the ``Holder``, or ``REFUSED`` if there is such a Lease."""

    record: Record


@dataclass(frozen=True, slots=True)
class ReadName:
    """Read the Lease from the API server. Report the ``Holder``, or ``MISSING``."""


@dataclass(frozen=True, slots=True)
class LookAtHolder:
    """Read the pod ``holder.pod``. Report its record, or ``MISSING``."""

    holder: Holder


@dataclass(frozen=True, slots=True)
class DropName:
    """Delete this void Lease by uid and version. Report ``MISSING`` when it is gone, ``REFUSED`` if it has changed."""

    holder: Holder


@dataclass(frozen=True, slots=True)
class Held:
    """The pod that has the name; ``None``: no pod has it, and there was none to take it for."""

    record: Record | None


NameStep = TakeName | ReadName | LookAtHolder | DropName | Held | GiveUp


class NameAttempt:
    """Finds who has the name, or takes it: do ``step``, report with ``answered``, and repeat until ``Held``.

    Args:
        contender: the pod to take the name for if no other has it; ``None`` only finds out.
    """

    def __init__(self, contender: Record | None) -> None:
        self._contender = contender
        self._tries = 0
        self._unknown = 0
        self.step: NameStep = ReadName() if contender is None else self._take()

    def answered(self, answer: Holder | Record | Answer) -> None:
        """Report the outcome of ``step``. Raises ``ValueError`` where that was no request."""
        step = self.step
        if isinstance(step, (Held, GiveUp)):
            raise ValueError(f"nothing was asked: {self!r}")
        if answer is Answer.UNKNOWN:
            self._unknown += 1
            again = step if isinstance(step, LookAtHolder) else ReadName()
            self.step = again if self._unknown < MOST_UNKNOWN else GiveUp()
        elif isinstance(answer, Holder):
            ours = self._contender is not None and answer.pod_uid == self._contender.uid
            self.step = Held(self._contender) if ours else LookAtHolder(answer)
        elif isinstance(step, LookAtHolder):
            living = isinstance(answer, Record) and answer.uid == step.holder.pod_uid and answer.counts
            self.step = Held(answer) if living and isinstance(answer, Record) else DropName(step.holder)
        elif answer is Answer.REFUSED:
            self.step = ReadName()
        else:
            self.step = Held(None) if self._contender is None else self._take()

    def _take(self) -> NameStep:
        assert self._contender is not None
        self._tries += 1
        return TakeName(self._contender) if self._tries <= MOST_TRIES else GiveUp()
