"""The decisions of one login's claim on a warm sandbox, whatever the API server answers. Pure.

A patch without an answer leaves one question open: is the pod ours? If the login moved on to the next pod, a pod could
stay claimed by a session that uses another one, or one session could appear to have two. So:

* **Answered 422**: the pod is no longer warm, not of this template, or being deleted. Another login has it for good,
  since a pod never becomes warm again: try the next pod at once. But after an unknown outcome on this same pod, 422
  may mean that the earlier patch was applied: look.
* **No answer**: read the pod itself (a GET returns what is written; the watch may lag). If it is ours, the claim is
  won. If it is another's, or gone, try the next pod; our patch, should it still arrive, will fail its ``test``. If it
  is still warm, send the **same** patch to the **same** pod again: should both arrive, the second one fails its
  ``test``. Until one of them is answered, no other pod is tried.
* **Repeatedly no answer**: give up. A patch that still arrives then leaves an orphan (``reap_plan.orphans``).
* **Won, but the pod has ended**: it is ours to delete; try the next pod.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

from sshgate.lifecycle.cache import PodCache
from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.records import Record, State
from sshgate.lifecycle.requests import Answer, Claim, Delete, Patch, claim_patch
from sshgate.lifecycle.schema import label_value

MOST_PODS = 5
MOST_UNKNOWN = 4


@dataclass(frozen=True, slots=True)
class TryPatch:
    """Send this patch to this pod and report the outcome with ``answered``."""

    record: Record
    patch: Patch


@dataclass(frozen=True, slots=True)
class GetPod:
    """Read this pod from the API server, not from the cache, and report it with ``answered``."""

    record: Record


@dataclass(frozen=True, slots=True)
class Won:
    """The sandbox is ours."""

    record: Record


@dataclass(frozen=True, slots=True)
class StartCold:
    """There is no warm pod to claim: start cold. Returned only when no patch of ours is under way."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The API server does not answer, or others are faster each time: raise ``Unavailable``."""


Step = TryPatch | GetPod | Won | StartCold | GiveUp


class ClaimAttempt:
    """One claim: call ``step``, do it, report with ``answered``, and repeat until ``Won``, ``Cold`` or ``GiveUp``.

    The session must have been admitted (``admission.admit``), else its pod would count as an orphan. ``discard``
    holds deletions of pods that were won but had ended; the caller carries them out. To abandon a claim midway,
    ``PodCache.end`` is enough: a pod that was claimed becomes an orphan and is deleted.

    Args:
        claim: who claims, and for how long.
        template: only pods of this template are tried.
        settle: seconds for which a pod must have been ready, if it is not fenced.
        instances: the gateways that live, see ``pick``.
    """

    def __init__(self, cache: PodCache, claim: Claim, template: str, settle: float, instances: Sequence[str]) -> None:
        self.claim = claim
        self.discard: list[Delete] = []
        self._cache = cache
        self._template = template
        self._settle = settle
        self._instances = instances
        self._tried = 0
        self._unknown = 0
        self._step: Step | None = None

    def __repr__(self) -> str:
        doing = "new" if self._step is None else type(self._step).__name__.lower()
        return f"<ClaimAttempt {self.claim.session}: {doing}, {self._tried} tried, {self._unknown} unknown>"

    def step(self, now: Now) -> Step:
        """What to do next. Returns the same step until ``answered`` is called."""
        if self._step is None:
            self._step = self._next(now)
        return self._step

    def answered(self, answer: Record | Answer, now: Now) -> None:
        """Report the outcome of the last step. Raises ``ValueError`` where that was no request."""
        step = self._step
        if not isinstance(step, (TryPatch, GetPod)):
            raise ValueError(f"nothing was asked: {self!r}")
        if isinstance(answer, Record):
            self._cache.observe(answer, now)
            self._step = self._observe(answer, now)
        elif answer is Answer.MISSING:
            self._cache.gone(step.record.uid, now)
            self._step = None
        elif answer is Answer.UNKNOWN:
            self._unknown += 1
            self._step = GetPod(step.record) if self._unknown < MOST_UNKNOWN else GiveUp()
        elif self._unknown:
            self._step = GetPod(step.record)
        else:
            self._lost(step.record, now)

    def _observe(self, record: Record, now: Now) -> TryPatch | Won | None:
        assert isinstance(self._step, (TryPatch, GetPod))
        asked = self._step.record
        if record.uid == asked.uid and record.state is State.WARM and not record.deleting:
            # Only a look can show this. The patch may still be under way, so send the same one again.
            return self._patch(asked, now)
        if record.uid != asked.uid or record.session != label_value(self.claim.session):
            self._lost(asked, now)
            return None
        if not record.usable:
            self.discard.append(Delete(record, "ended while it was claimed", untouched=False))
            self._cache.expectations.delete(record.uid, now.mono)
            self._lost(asked, now)
            return None
        self._cache.hold(self.claim.session, record.uid)
        return Won(record)

    def _lost(self, record: Record, now: Now) -> None:
        """Done with this pod: its outcome is known, and it is of no use to this claim."""
        self._cache.reserve(record.uid, None, now)
        self._unknown = 0
        self._step = None

    def _next(self, now: Now) -> Step:
        # A gateway to which we lost does not know us yet, or we it: the best pod is the best for it as well.
        chance = crc32(f"{self.claim.session} {self._tried}".encode()) if self._tried else None
        record = pick(self._cache, self._template, self._settle, self._instances, now, chance)
        if record is None or self._tried >= MOST_PODS:
            return StartCold()
        self._tried += 1
        return self._patch(record, now)

    def _patch(self, record: Record, now: Now) -> TryPatch:
        self._cache.reserve(record.uid, self.claim.session, now)
        return TryPatch(record, claim_patch(record, self.claim, now))


def pick(
    cache: PodCache, template: str, settle: float, instances: Sequence[str], now: Now, chance: int | None = None
) -> Record | None:
    """The best pod to claim, or with ``chance``, a random number, any; ``None``: there is none, start cold.

    Only pods of exactly this template that are ready, have an address, and are fenced or have been ready for ``settle``
    seconds by this gateway's clock. Each of the gateway ``instances`` has a slice of the pods, and others pick there
    only when their own slice is empty, so that gateways seldom race. Gateways that see different sets may race; the
    claim's ``test`` decides.
    """
    cache.share(instances)
    since = now.mono - settle
    ours = cache.settled(template, True, since, now, chance)
    return ours or cache.settled(template, False, since, now, chance)
