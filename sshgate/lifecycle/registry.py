"""The state of one gateway in one place: the cache, the membership, the limits, and the requests to the API server.

Every decision is carried out through the registry, so that the cache learns of every answer. The Kubernetes provider
makes the one registry of a gateway, feeds it from its watch, and implements ``Cluster``; nothing here knows Kubernetes.
The local provider has no registry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Set
from typing import Protocol

from sshgate.access.limits import Starts
from sshgate.config.model import Limits
from sshgate.errors import GateError, Unavailable
from sshgate.lifecycle.admission import admit
from sshgate.lifecycle.cache import PodCache
from sshgate.lifecycle.claim import ClaimAttempt, GetPod, GiveUp, TryPatch, Won
from sshgate.lifecycle.clocks import ClusterTime, Now
from sshgate.lifecycle.membership import Membership
from sshgate.lifecycle.records import Record
from sshgate.lifecycle.requests import Answer, Create, Delete, Patch
from sshgate.lifecycle.schema import label_value
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import Events, to_log

# Seconds to wait before reading a pod whose patch was not answered: an API server that restarts refuses connections at
# once, so reading without a pause would use up all attempts.
LOOK_AFTER = (0.05, 0.3, 1.0)


class Cluster(Protocol):
    """The requests on pods. Each call is one request, which is retried only where that cannot apply it twice.

    Only ``make`` raises for an answer of the API server. The others return ``Answer``; ``Answer.UNKNOWN`` means that
    the request may or may not have been applied. Cancelling a call leaves its outcome unknown.
    """

    async def make(self, create: Create) -> Record:
        """Make a warm pod. Raises ``Unavailable`` when it may have been made, another ``GateError`` when it was not."""

    async def patch(self, name: str, patch: Patch) -> Record | Answer:
        """Apply a JSON Patch. Returns the pod after the patch, or why there is none."""

    async def look(self, name: str) -> Record | Answer:
        """Read a pod from the API server, not from the watch, which may lag."""

    async def delete(self, delete: Delete) -> Answer | None:
        """Delete a pod. Returns ``None`` when the deletion was accepted.

        ``Answer.REFUSED``: the name belongs to another pod by now, or the pod was changed and had to be ``untouched``.
        """


class Registry:
    """One per gateway. Everything except the four requests is synchronous; nothing here starts a task."""

    def __init__(
        self, instance: str, limits: Limits, cluster: Cluster, clock: Callable[[], Now], events: Events | None = None
    ) -> None:
        """``clock`` is this machine's. The wall time in use is the API server's, see ``ClusterTime.record``."""
        self.events = events if events is not None else Events(to_log)
        self.instance = instance
        self.limits = limits
        self.cache = PodCache(instance)
        self.membership = Membership(instance)
        self.time = ClusterTime(clock())
        self._clock = clock
        self._cluster = cluster
        self.starts = Starts(limits.starts_per_minute)
        self.leader: Callable[[], bool] | None = None
        """Whether this gateway was elected. ``None``: no election; the first of ``live_instances`` leads."""
        self._change: asyncio.Future[None] | None = None

    def limit(self, limits: Limits) -> None:
        """Use other limits from now on. A changed ``starts_per_minute`` resets the count of recent starts."""
        self.starts.per_minute = limits.starts_per_minute
        self.limits = limits
        self.notify()

    @property
    def now(self) -> Now:
        """The present time: our monotonic clock and the API server's wall clock."""
        return self.time.at(self._clock().mono)

    @property
    def live_instances(self) -> list[str]:
        """The gateway instances that live, this one among them."""
        return self.membership.alive()

    @property
    def leads(self) -> bool:
        """Whether this gateway is the leader, which fills the pools and deletes what dead gateways left."""
        return self.leader() if self.leader is not None else self.live_instances[0] == self.instance

    # --- events of the watch ---

    def replace(self, records: Iterable[Record], version: str = "") -> None:
        """Take the answer to a list: every pod there was at this resource version."""
        self.cache.sync(records, self.now, version)
        self.notify()

    def prune(self, uids: Set[str], version: str) -> None:
        """A list at this resource version had these pods, which ``update`` has reported: forget all others."""
        self.cache.prune(uids, self.now, version)
        self.notify()

    def update(self, record: Record) -> None:
        """Take one report on one pod."""
        if self.cache.observe(record, self.now):
            self.notify()

    def remove(self, uid: str) -> None:
        """The pod does not exist any more."""
        self.cache.gone(uid, self.now)
        self.notify()

    def changed(self) -> asyncio.Future[None]:
        """A future that is done at the next change. Each waiter has its own, and may cancel it."""
        if self._change is None or self._change.done():
            self._change = asyncio.get_running_loop().create_future()
        return asyncio.shield(self._change)

    def notify(self) -> None:
        """Wake all that wait for a change."""
        if self._change is not None and not self._change.done():
            self._change.set_result(None)

    # --- sessions ---

    def admit(self, user: str, session: str, again: bool = False) -> None:
        """Admit one more sandbox, to be made or claimed; it counts until ``end``. Raises ``LimitReached``.

        ``again``: it was admitted before, another pod was in the way, and it takes no second start.
        """
        admit(self.cache, self.limits, None if again else self.starts, user, session, self.now)

    def end(self, session: str, uid: str | None = None) -> None:
        """The session is over, and with it the sandbox ``uid``, which the caller deletes."""
        self.cache.end(session)
        if uid is not None:
            self.cache.expectations.delete(uid, self.now.mono)
        self.notify()

    # --- requests: the cache learns of every answer ---

    async def make(self, create: Create) -> Record:
        """Make a warm pod that the cache expects already. Raises as ``Cluster.make`` does."""
        try:
            record = await self._cluster.make(create)
        except Unavailable:
            raise  # expected until the watch shows it or the expectation expires
        except GateError:
            self.cache.expectations.observe(create.name)
            raise
        self.update(record)
        return record

    async def patch(self, record: Record, patch: Patch) -> Record | Answer:
        """Apply a patch to a pod."""
        return self._record(record, await self._cluster.patch(record.name, patch))

    async def look(self, record: Record) -> Record | Answer:
        """Read a pod from the API server."""
        return self._record(record, await self._cluster.look(record.name))

    async def delete(self, delete: Delete) -> bool:
        """Carry out a deletion that the cache expects. Returns whether the pod is being deleted or gone."""
        uid = delete.record.uid
        try:
            answer = await self._cluster.delete(delete)
        except asyncio.CancelledError:
            self.cache.expectations.undelete(uid)
            raise
        if answer is Answer.MISSING:
            self.remove(uid)
        elif answer is not None:
            # Refused or unknown: the watch will show the outcome, and the next pass decides again.
            self.cache.expectations.undelete(uid)
        return answer in (None, Answer.MISSING)

    async def claim(self, attempt: ClaimAttempt, discard: Callable[[Delete], None]) -> Record | None:
        """Claim a warm sandbox. Returns its pod, or ``None`` where the login has to start cold.

        ``discard`` is called with each deletion that is to be carried out: pods that were claimed and are of no use.
        Raises ``Unavailable`` when the API server does not answer; a patch that still arrives then leaves an orphan,
        which is deleted. Cancelling waits for the answer to a patch under way and discards the pod if it was won:
        otherwise nobody would know whether the pod is taken.
        """
        unanswered = 0
        try:
            while True:
                step = attempt.step(self.now)
                if isinstance(step, Won):
                    return step.record
                if isinstance(step, TryPatch):
                    answer = await self._try_patch(step, attempt, discard)
                    if answer is Answer.REFUSED:
                        self.events.emit(Code.CLAIM_LOST, sandbox=step.record.name)
                elif isinstance(step, GetPod):
                    await asyncio.sleep(LOOK_AFTER[min(unanswered, len(LOOK_AFTER)) - 1])
                    answer = await self.look(step.record)
                elif isinstance(step, GiveUp):
                    raise Unavailable("the API server does not answer; try again in a moment.")
                else:
                    return None
                unanswered += answer is Answer.UNKNOWN
                attempt.answered(answer, self.now)
        finally:
            for delete in attempt.discard:
                discard(delete)

    async def _try_patch(
        self, step: TryPatch, attempt: ClaimAttempt, discard: Callable[[Delete], None]
    ) -> Record | Answer:
        request = asyncio.ensure_future(self.patch(step.record, step.patch))
        try:
            return await asyncio.shield(request)
        except asyncio.CancelledError:
            answer = await request
            if isinstance(answer, Record) and answer.session == label_value(attempt.claim.session):
                discard(Delete(answer, "its login was given up", untouched=False))
            raise

    def _record(self, record: Record, answer: Record | Answer) -> Record | Answer:
        if isinstance(answer, Record):
            self.update(answer)
        elif answer is Answer.MISSING:
            self.remove(record.uid)
        return answer
