"""What one gateway knows and asks for, in one place: the book, who is alive, and the way to the API server.

Everything that carries out a decision goes through here, so that the book hears of every answer. The Kubernetes
provider makes the one registry of a gateway, feeds it from its watch, and gives it the means (``Cluster``);
nothing here knows Kubernetes. A place without a cluster has none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from sshgate.config.model import Limits
from sshgate.errors import GateError, Unavailable
from sshgate.lifecycle.actions import Create, Delete
from sshgate.lifecycle.admission import Starts, admit
from sshgate.lifecycle.cache import PodCache
from sshgate.lifecycle.claim import Answer
from sshgate.lifecycle.clocks import ClusterTime, Now
from sshgate.lifecycle.membership import Membership
from sshgate.lifecycle.patches import Patch
from sshgate.lifecycle.records import Record
from sshgate.telemetry.events import Events, to_log


class Cluster(Protocol):
    """What can be done to pods. Each is one request, repeated only where that cannot do it twice.

    No call raises for what the API server answers, but ``make``; a request whose outcome nobody knows is
    ``Answer.UNKNOWN``. Cancelling leaves the outcome unknown.
    """

    async def make(self, create: Create) -> Record:
        """Make a warm pod. Raises ``Unavailable`` when nobody knows whether it was made, else another ``GateError``."""

    async def patch(self, name: str, patch: Patch) -> Record | Answer:
        """The pod as it is after the patch."""

    async def look(self, name: str) -> Record | Answer:
        """The pod as it is written, not as the watch has it."""

    async def delete(self, delete: Delete) -> Answer | None:
        """``None``: accepted. ``Answer.REFUSED``: another pod by now, or one that was touched meanwhile."""


class Registry:
    """One per gateway. All but the four requests is synchronous; nothing here starts a task."""

    def __init__(
        self, life: str, limits: Limits, cluster: Cluster, clock: Callable[[], Now], events: Events | None = None
    ) -> None:
        """``clock`` is this machine's; the wall time that counts is learned from the API server (``time.heard``)."""
        self.events = events if events is not None else Events(to_log)
        self.life = life
        self.limits = limits
        self.book = PodCache(life)
        self.presence = Membership(life)
        self.time = ClusterTime(clock())
        self._clock = clock
        self._cluster = cluster
        self._starts = Starts(limits.starts_per_minute)
        self.leader: Callable[[], bool] | None = None
        """Whether this gateway was elected; ``None``: where nobody elects, the first of ``lives`` leads."""
        self._change: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<Registry {self.life}: {self.book!r}, {self.presence!r}>"

    def limit(self, limits: Limits) -> None:
        """Other limits from now on; starts of the last minute are forgotten where their pace has changed."""
        if limits.starts_per_minute != self.limits.starts_per_minute:
            self._starts = Starts(limits.starts_per_minute)
        self.limits = limits
        self.notify()

    @property
    def now(self) -> Now:
        """This moment: our monotonic clock, and the API server's wall clock."""
        return self.time.at(self._clock().mono)

    @property
    def lives(self) -> list[str]:
        """The gateways that are alive, this one among them."""
        return self.presence.alive()

    @property
    def leads(self) -> bool:
        """Whether this gateway is the one that makes and removes what belongs to all of them."""
        return self.leader() if self.leader is not None else self.lives[0] == self.life

    # --- what the watch tells ---

    def replace(self, records: Iterable[Record], version: str = "") -> None:
        """The answer to a list: every pod there was at this resource version."""
        self.book.sync(records, self.now, version)
        self.notify()

    def update(self, record: Record) -> None:
        """One account of one pod."""
        if self.book.observe(record, self.now):
            self.notify()

    def remove(self, uid: str) -> None:
        """The end of a pod."""
        self.book.gone(uid, self.now)
        self.notify()

    def changed(self) -> asyncio.Future[None]:
        """Done at the next change of the book. Several may wait: who gives up ends nobody else's waiting."""
        if self._change is None or self._change.done():
            self._change = asyncio.get_running_loop().create_future()
        return asyncio.shield(self._change)

    def notify(self) -> None:
        """Something is no longer as it was: wake whoever waits for that."""
        if self._change is not None and not self._change.done():
            self._change.set_result(None)

    # --- sessions ---

    def admit(self, user: str, session: str) -> None:
        """Let one more sandbox be made or taken. Raises ``LimitReached``. Counts until ``end``."""
        admit(self.book, self.limits, self._starts, user, session, self.now)

    def end(self, session: str, uid: str | None = None) -> None:
        """The session is over, and with it the sandbox ``uid``, which whoever calls this deletes."""
        self.book.end(session)
        if uid is not None:
            self.book.expectations.delete(uid, self.now.mono)
        self.notify()

    # --- requests: the book hears of every answer ---

    async def make(self, create: Create) -> Record:
        """Make a warm pod, expected by the book already. Raises as ``Cluster.make`` does."""
        try:
            record = await self._cluster.make(create)
        except Unavailable:
            raise  # expected until the watch shows it or the expectation expires
        except GateError:
            self.book.expectations.observe(create.name)
            raise
        self.update(record)
        return record

    async def patch(self, record: Record, patch: Patch) -> Record | Answer:
        """Change a pod."""
        return self._record(record, await self._cluster.patch(record.name, patch))

    async def look(self, record: Record) -> Record | Answer:
        """Read a pod anew."""
        return self._record(record, await self._cluster.look(record.name))

    async def delete(self, delete: Delete) -> bool:
        """Carry out a deletion that the book expects; whether the pod is going or gone."""
        uid = delete.record.uid
        try:
            answer = await self._cluster.delete(delete)
        except asyncio.CancelledError:
            self.book.expectations.undelete(uid)
            raise
        if answer is Answer.MISSING:
            self.remove(uid)
        elif answer is not None:
            # Refused or unknown: the watch says what became of it, the next pass decides anew.
            self.book.expectations.undelete(uid)
        return answer in (None, Answer.MISSING)

    def _record(self, record: Record, answer: Record | Answer) -> Record | Answer:
        if isinstance(answer, Record):
            self.update(answer)
        elif answer is Answer.MISSING:
            self.remove(record.uid)
        return answer
