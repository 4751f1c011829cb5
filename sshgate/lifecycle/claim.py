"""One login's way to a warm sandbox, whatever the API server answers. Pure.

The one question a patch without an answer leaves is "is the pod ours?". Moving on to the next pod would leave a
pod claimed by a session that uses another one, or worse, make it look as if one session had two. So:

* **Answered 422**: no longer warm, not of this template, or being deleted. Somebody else has it for good, since a
  pod never becomes warm again. Next pod, at once. But after an unknown outcome on this same pod, 422 may mean that
  the earlier patch was applied: look.
* **No answer**: look at the pod itself (a GET sees what is written, the watch may be behind). Ours: won. Somebody
  else's, or gone: next; our patch, should it still be under way, will fail its ``test``. Still warm: send the
  **same** patch to the **same** pod again. Should both arrive, the second one fails its ``test`` and nothing is
  done twice; and until one of them is answered, no other pod is touched.
* **Never an answer**: give up. What may still arrive then is found as a stray (``reap.strays``).
* **Won, but the pod has ended**: it is ours to delete; next pod.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from sshgate.lifecycle.actions import Delete
from sshgate.lifecycle.cache import PodCache
from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.patches import Claim, Patch, claim_patch
from sshgate.lifecycle.pick import pick
from sshgate.lifecycle.records import Record, State
from sshgate.lifecycle.schema import label_value

MOST_PODS = 5
MOST_UNKNOWN = 4


class Answer(Enum):
    """What came back instead of a pod."""

    REFUSED = "refused"
    """422 or 409: the patch was not applied, the pod is not as it should be."""
    MISSING = "missing"
    """404: there is no such pod."""
    UNKNOWN = "unknown"
    """Time-out, broken connection, 5xx, 429: applied or not, now or later."""


@dataclass(frozen=True, slots=True)
class Try:
    """Send this patch to this pod; report with ``answered``."""

    record: Record
    patch: Patch


@dataclass(frozen=True, slots=True)
class Look:
    """Read this pod from the API server (no cache); report with ``answered``."""

    record: Record


@dataclass(frozen=True, slots=True)
class Won:
    """The sandbox is ours."""

    record: Record


@dataclass(frozen=True, slots=True)
class Cold:
    """No warm pod is to be had: make one. Allowed only now, when no patch of ours is under way."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The API server does not answer: ``Unavailable``."""


Step = Try | Look | Won | Cold | GiveUp


class Claiming:
    """Ask ``step``, do it, tell ``answered``, and so on until ``Won``, ``Cold`` or ``GiveUp``.

    The session must have been admitted (``admit``), so that its pod is never taken for a stray. ``discard`` holds
    pods that were won and are of no use: delete them. If the login is abandoned in between, nothing need be
    done but ``book.end``: what was claimed then becomes a stray and is deleted.
    """

    def __init__(self, book: PodCache, claim: Claim, template: str, settle: float, lives: Collection[str]) -> None:
        self.claim = claim
        self.discard: list[Delete] = []
        self._book = book
        self._template = template
        self._settle = settle
        self._lives = lives
        self._tried = 0
        self._unknown = 0
        self._step: Step | None = None

    def __repr__(self) -> str:
        doing = "new" if self._step is None else type(self._step).__name__.lower()
        return f"<Claiming {self.claim.session}: {doing}, {self._tried} tried, {self._unknown} unknown>"

    def step(self, now: Now) -> Step:
        """What is to be done. The same again until ``answered`` was called."""
        if self._step is None:
            self._step = self._next(now)
        return self._step

    def answered(self, answer: Record | Answer, now: Now) -> None:
        """The pod as the API server returned it, or what came instead."""
        step = self._step
        if not isinstance(step, (Try, Look)):
            raise ValueError(f"nothing was asked: {self!r}")
        if isinstance(answer, Record):
            self._book.observe(answer, now)
            self._step = self._observe(answer, now)
        elif answer is Answer.MISSING:
            self._book.gone(step.record.uid, now)
            self._step = None
        elif answer is Answer.UNKNOWN:
            self._unknown += 1
            self._step = Look(step.record) if self._unknown < MOST_UNKNOWN else GiveUp()
        elif self._unknown:
            self._step = Look(step.record)
        else:
            self._lost(step.record, now)

    def _observe(self, record: Record, now: Now) -> Try | Won | None:
        assert isinstance(self._step, (Try, Look))
        asked = self._step.record
        if record.uid == asked.uid and record.state is State.WARM and not record.deleting:
            # Only a look can show this. The patch may still be under way: the same again, never another.
            return self._patch(asked, now)
        if record.uid != asked.uid or record.session != label_value(self.claim.session):
            self._lost(asked, now)
            return None
        if not record.usable:
            self.discard.append(Delete(record, "ended while it was claimed", untouched=False))
            self._book.expectations.delete(record.uid, now.mono)
            self._lost(asked, now)
            return None
        self._book.hold(self.claim.session, record.uid)
        return Won(record)

    def _lost(self, record: Record, now: Now) -> None:
        """This pod is settled, one way or the other: whatever was unknown about it is so no more."""
        self._book.reserve(record.uid, None, now)
        self._unknown = 0
        self._step = None

    def _next(self, now: Now) -> Step:
        record = pick(self._book, self._template, self._settle, self._lives, now)
        if record is None or self._tried >= MOST_PODS:
            return Cold()
        self._tried += 1
        return self._patch(record, now)

    def _patch(self, record: Record, now: Now) -> Try:
        self._book.reserve(record.uid, self.claim.session, now)
        return Try(record, claim_patch(record, self.claim, now))
