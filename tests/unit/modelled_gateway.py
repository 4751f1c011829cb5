"""A gateway that does nothing but carry out what the lifecycle decides, one request at a time.

Its requests wait in ``outbox`` until the simulation delivers them, in any order and with any fate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sshgate.access.limits import Starts
from sshgate.config.model import Limits
from sshgate.errors import LimitReached
from sshgate.lifecycle import schema as labels
from sshgate.lifecycle.admission import admit
from sshgate.lifecycle.cache import PodCache
from sshgate.lifecycle.claim import ClaimAttempt, GetPod, GiveUp, StartCold, TryPatch, Won
from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.membership import Membership
from sshgate.lifecycle.pool_plan import Refiller, Target, evict_for_login
from sshgate.lifecycle.reap_plan import Rules, orphans, reap
from sshgate.lifecycle.records import Record, warm_metadata
from sshgate.lifecycle.requests import Answer, Claim, Create, Delete, Detach, claim_annotations
from tests.unit.modelled_cluster import Cluster, PodJson, Refused, record_from

PROFILE = "default"
LIFETIME = 3600.0


@dataclass(eq=False)
class Request:
    """Something under way to the API server. ``answer`` gets a pod, an HTTP status, or None: nobody knows."""

    apply: Callable[[], PodJson | None]
    answer: Callable[[PodJson | int | None], None]
    about: str


@dataclass(eq=False)
class Session:
    """A user's session; ``uid`` is the pod it runs in."""

    id: str
    user: str
    template: str
    uid: str | None = None
    over: bool = False


@dataclass(eq=False)
class Gateway:
    """One life of one gateway."""

    instance: str
    cluster: Cluster
    limits: Limits
    clock: Callable[[], Now]
    settle: float
    deleted: Callable[[str, str], None]
    """Told of each deletion that the API server accepts: uid, reason."""
    outbox: list[Request] = field(default_factory=list)
    sessions: dict[str, Session] = field(default_factory=dict)
    read: int = 0

    def __post_init__(self) -> None:
        self.book = PodCache(self.instance)
        self.presence = Membership(self.instance)
        self.starts = Starts(None)
        self._names = 0
        self.refiller = Refiller(self._token, lambda: 0.5)

    def _token(self) -> str:
        self._names += 1
        return f"{self.instance}x{self._names}"

    # --- the watch ---

    def relist(self) -> None:
        self.read = len(self.cluster.log)
        self.book.sync([record_from(pod) for pod in self.cluster.pods.values()], self.clock())

    def watch(self, count: int) -> None:
        for event in self.cluster.log[self.read : self.read + count]:
            self.read += 1
            if event.get("gone"):
                self.book.gone(event["metadata"]["uid"], self.clock())
            else:
                self.book.observe(record_from(event), self.clock())

    # --- sessions ---

    def login(self, user: str, session: str, template: str) -> bool:
        try:
            admit(self.book, self.limits, self.starts, user, session, self.clock())
        except LimitReached:
            return False
        self.sessions[session] = Session(session, user, template)
        claim = Claim(user, session, "gw", self.instance, LIFETIME)
        instances = self.presence.alive()
        self._claim(self.sessions[session], ClaimAttempt(self.book, claim, template, self.settle, instances))
        return True

    def logout(self, session: Session) -> None:
        session.over = True
        self.book.end(session.id)
        for record in self.book.of_session(session.id, self.clock()):
            if record.uid == session.uid:
                self.book.expectations.delete(record.uid, self.clock().mono)
                self._delete(Delete(record, "logout", untouched=False))

    def _claim(self, session: Session, claiming: ClaimAttempt) -> None:
        if session.over:
            return
        step = claiming.step(self.clock())
        name = step.record.name if isinstance(step, (TryPatch, GetPod)) else ""

        def answered(answer: PodJson | int | None) -> None:
            report = (
                {None: Answer.UNKNOWN, 404: Answer.MISSING}.get(answer, Answer.REFUSED)
                if not isinstance(answer, dict)
                else record_from(answer)
            )
            claiming.answered(report, self.clock())
            self._claim(session, claiming)

        if isinstance(step, TryPatch):
            patch = step.patch
            self._send(lambda: self.cluster.patch(name, patch), answered, f"claim {name}")
        elif isinstance(step, GetPod):
            self._send(lambda: self.cluster.get(name), answered, f"look {name}")
        elif isinstance(step, Won):
            session.uid = step.record.uid
        elif isinstance(step, GiveUp):
            self.logout(session)
        else:
            assert isinstance(step, StartCold)
            self._cold(session, claiming.claim)
        while claiming.discard:
            self._delete(claiming.discard.pop())

    def _cold(self, session: Session, claim: Claim) -> None:
        """Make room under the limit, then create; a creation nobody knows of is asked for again by its name."""
        deletes = evict_for_login(self.book, self.book.total(self.clock()) - self.limits.sandboxes, self.clock())
        if deletes and not session.over:
            for delete in deletes[:-1]:
                self._delete(delete)
            self._delete(deletes[-1], then=lambda: self._cold(session, claim))
            return
        marks = {
            labels.MANAGED_BY: labels.MANAGED,
            labels.STATE: labels.CLAIMED,
            labels.PROFILE: PROFILE,
            labels.TEMPLATE: session.template,
            labels.USER: labels.user_hash(session.user),
            labels.SESSION: session.id,
        }
        name, notes = f"cold-{session.id}", claim_annotations(claim, self.clock())

        def answered(answer: PodJson | int | None) -> None:
            if answer is None and not session.over:
                self._send(create, answered, f"create {name}")
            elif isinstance(answer, dict):
                self._made(session, record_from(answer))
            elif answer == 409:
                self._send(lambda: self.cluster.get(name), answered, f"look {name}")

        def create() -> PodJson:
            return self.cluster.create(name, marks, notes, int(LIFETIME))

        if not session.over:
            self._send(create, answered, f"create {name}")

    def _made(self, session: Session, record: Record) -> None:
        self.book.observe(record, self.clock())
        self.book.hold(session.id, record.uid)
        session.uid = record.uid
        if session.over:
            self._delete(Delete(record, "logout", untouched=False))

    # --- the leader ---

    def refill(self, targets: list[Target]) -> int:
        """Returns how many changes were asked for."""
        actions = self.refiller.decide(self.book, targets, self.limits.sandboxes, self.clock())
        for action in actions:
            if isinstance(action, Create):
                self._create(action)
            elif isinstance(action, Delete):
                self._delete(action)
        return sum(isinstance(action, (Create, Delete)) for action in actions)

    def reap(self) -> int:
        actions = [*reap(self.book, self.presence, Rules(), self.clock()), *orphans(self.book, self.clock())]
        for action in actions:
            assert not isinstance(action, Detach)
            self._delete(action)
        return len(actions)

    def _create(self, action: Create) -> None:
        marks, notes = warm_metadata(action.profile, action.template, "gw", self.instance)

        def answered(answer: PodJson | int | None) -> None:
            if answer is None:
                self.refiller.unanswered(action, "no answer", self.clock())
            elif answer == 409:
                self._send(lambda: self.cluster.get(action.name), answered, f"look {action.name}")
            elif isinstance(answer, dict):
                self.refiller.answered(action)
                self.book.observe(record_from(answer), self.clock())

        self._send(lambda: self.cluster.create(action.name, marks, notes), answered, f"create {action.name}")

    def _delete(self, action: Delete, then: Callable[[], None] = lambda: None) -> None:
        record = action.record

        def apply() -> None:
            self.cluster.delete(record.name, record.uid, record.version if action.untouched else None)
            self.deleted(record.uid, action.reason)

        def answered(answer: PodJson | int | None) -> None:
            if answer == 404:
                self.book.gone(record.uid, self.clock())
            elif answer == 409:
                self.book.expectations.undelete(record.uid)
            then()

        self._send(apply, answered, f"delete {record.name}")

    def _send(self, apply: Callable[[], Any], answer: Callable[[PodJson | int | None], None], about: str) -> None:
        self.outbox.append(Request(apply, answer, about))


def deliver(request: Request, arrives: bool, answered: bool) -> None:
    """Let a request reach the API server or not, and its answer come back or not."""
    answer: PodJson | int | None = None
    if arrives:
        try:
            answer = request.apply()
            answer = 200 if answer is None else answer
        except Refused as refused:
            answer = refused.code
    request.answer(answer if answered and arrives else None)
