"""One pod as the lifecycle reads it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum

from sshgate.lifecycle import schema as labels


class State(IntEnum):
    """Who owns a sandbox. It only advances, so that of two reports on one pod the greater state is the newer."""

    WARM = 1
    """Not claimed yet."""
    CLAIMED = 2
    DRAINING = 3
    """It can no longer be claimed or joined; it is deleted when its clients have left."""
    UNKNOWN = 4
    """A value that we do not know: the pod counts towards the limits, and is never handed out or deleted."""


class Stage(Enum):
    """How far the start of a pod has come, or that it has ended."""

    STARTING = "starting"
    UNSCHEDULABLE = "unschedulable"
    """No node has room for it; the scheduler keeps trying."""
    BLOCKED = "blocked"
    """Its image or configuration is missing; the kubelet keeps trying."""
    READY = "ready"
    FINISHED = "finished"
    """Succeeded or failed; it never runs again."""


PHASES = ("warm", "starting", "held", "claimed")


@dataclass(frozen=True, slots=True)
class Record:
    """The facts of a pod on which decisions are based. Times are POSIX seconds, as written in the cluster."""

    name: str
    uid: str
    version: str = ""
    """The resource version: the precondition of a deletion that must not hit a pod that was just claimed."""
    state: State = State.WARM
    stage: Stage = Stage.STARTING
    profile: str = ""
    template: str = ""
    user: str | None = None
    """The user's name, for people. ``user_hash`` decides whose the pod is."""
    user_hash: str | None = None
    sandbox: str | None = None
    """The name of a named sandbox; ``None``: ephemeral."""
    session: str | None = None
    gateway: str | None = None
    instance: str | None = None
    node: str | None = None
    ip: str | None = None
    created: float = 0.0
    started: float | None = None
    """The start of ``activeDeadlineSeconds``."""
    ready_since: float | None = None
    deleting: bool = False
    reason: str | None = None
    """Why it is in this stage, in the cluster's words: ``Unschedulable``, ``ErrImageNeverPull``, ``Evicted`` ..."""
    deadline: int | None = None
    """``activeDeadlineSeconds``."""
    claimed_at: float | None = None
    last_seen: float | None = None
    detached_at: float | None = None
    expires_at: float | None = None
    kept_for: float | None = None
    """Seconds for which a named sandbox is kept without clients, as written when it was made or claimed."""
    attached: frozenset[str] = field(default_factory=frozenset)
    """The gateway instances that have clients in a named sandbox."""

    def __repr__(self) -> str:
        whose = f" of {self.user}" if self.user else ""
        named = f"={self.sandbox}" if self.sandbox else ""
        gone = ", deleting" if self.deleting else ""
        return f"<Record {self.name}: {self.state.name.lower()}{whose}{named} {self.stage.value}{gone}>"

    @property
    def usable(self) -> bool:
        """Whether programs can run in it, as far as its pod shows."""
        return self.stage is Stage.READY and self.ip is not None and not self.deleting

    @property
    def counts(self) -> bool:
        """Whether it counts towards the limits: not when it is being deleted or has ended."""
        return not self.deleting and self.stage is not Stage.FINISHED

    @property
    def to_be_named(self) -> bool:
        """Whether it was claimed for a name and does not bear it yet; a gateway may be writing it just now."""
        return self.kept_for is not None and self.sandbox is None

    @property
    def phase(self) -> str:
        """One of ``PHASES``, by which operators see pods counted."""
        if self.state is not State.WARM:
            return "claimed"
        if self.usable:
            return "warm"
        return "starting" if self.stage in (Stage.STARTING, Stage.READY) else "held"

    def claim_order(self) -> tuple[float, str]:
        """Sorts by the time of the claim, which has milliseconds; the time of a pod's creation has only seconds."""
        return self.claimed_at or self.created, self.name

    @property
    def left_at(self) -> float:
        """Since when a named sandbox has no clients and runs nothing, as far as is written on the pod."""
        times = (self.detached_at, self.last_seen, self.claimed_at, self.created)
        return max(time for time in times if time is not None)


def warm_metadata(profile: str, template: str, gateway: str, instance: str) -> tuple[dict[str, str], dict[str, str]]:
    """The labels and annotations of a new warm pod."""
    marks = {
        labels.MANAGED_BY: labels.MANAGED,
        labels.STATE: labels.WARM,
        labels.PROFILE: labels.label_value(profile),
        labels.TEMPLATE: template,
        labels.GATEWAY: labels.label_value(gateway),
    }
    # The annotations are never empty: a JSON Patch can add a key only to a mapping that exists.
    return marks, {labels.INSTANCE: instance}
