"""Which pod has a name: single situations, and gateways, kills, lost answers and the collector in any order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sshgate.lifecycle.claim import MOST_UNKNOWN, GiveUp
from sshgate.lifecycle.naming import (
    MOST_TRIES,
    DropName,
    Held,
    Holder,
    LookAtHolder,
    NameAttempt,
    ReadName,
    TakeName,
)
from sshgate.lifecycle.records import Record, Stage
from sshgate.lifecycle.requests import Answer
from tests.unit.lifecycle_values import claimed

OURS, OTHER = claimed("ours"), claimed("other")
THEIRS = Holder("lease", "1", OTHER.name, OTHER.uid)


def step(attempt: NameAttempt) -> object:
    return attempt.step


def test_a_name_that_nobody_has_is_taken_by_one_request() -> None:
    attempt = NameAttempt(OURS)
    assert step(attempt) == TakeName(OURS)
    attempt.answered(Holder("lease", "1", OURS.name, OURS.uid))
    assert step(attempt) == Held(OURS)
    with pytest.raises(ValueError, match="nothing was asked"):
        attempt.answered(Answer.REFUSED)


def test_a_name_that_another_pod_has_is_that_pods() -> None:
    attempt = NameAttempt(OURS)
    attempt.answered(Answer.REFUSED)
    assert step(attempt) == ReadName()
    attempt.answered(THEIRS)
    assert step(attempt) == LookAtHolder(THEIRS)
    attempt.answered(OTHER)
    assert step(attempt) == Held(OTHER)


@pytest.mark.parametrize(
    "pod",
    [
        Answer.MISSING, replace(OTHER, uid="newer"), replace(OTHER, deleting=True),
        replace(OTHER, stage=Stage.FINISHED),
    ],
)  # fmt: skip
@pytest.mark.parametrize("contender", [OURS, None])
def test_a_lease_whose_pod_has_ended_is_deleted_as_it_was_read_and_made_anew(
    pod: Record | Answer, contender: Record | None
) -> None:
    attempt = NameAttempt(contender)
    if contender is not None:
        attempt.answered(Answer.REFUSED)
    attempt.answered(THEIRS)
    attempt.answered(pod)
    assert step(attempt) == DropName(THEIRS)
    attempt.answered(Answer.MISSING)
    assert step(attempt) == (Held(None) if contender is None else TakeName(contender))


def test_a_lease_that_has_changed_meanwhile_is_read_again() -> None:
    attempt = NameAttempt(None)
    attempt.answered(THEIRS)
    attempt.answered(Answer.MISSING)
    attempt.answered(Answer.REFUSED)
    assert step(attempt) == ReadName()


def test_without_an_answer_the_lease_is_read_and_what_arrived_after_all_is_ours() -> None:
    attempt = NameAttempt(OURS)
    attempt.answered(Answer.UNKNOWN)
    assert step(attempt) == ReadName()
    attempt.answered(Holder("lease", "1", OURS.name, OURS.uid))
    assert step(attempt) == Held(OURS)


def test_it_gives_up_without_answers_and_where_others_are_faster_each_time() -> None:
    attempt = NameAttempt(OURS)
    for _ in range(MOST_UNKNOWN):
        attempt.answered(Answer.UNKNOWN)
    assert step(attempt) == GiveUp()
    attempt, tries = NameAttempt(OURS), 0
    while isinstance(attempt.step, TakeName):
        tries += 1
        for answer in (Answer.REFUSED, Answer.MISSING):
            attempt.answered(answer)
    assert (tries, step(attempt)) == (MOST_TRIES, GiveUp())


@dataclass
class World:
    """The API server's pods and the one Lease of a name; requests are applied at once, answers may be lost."""

    pods: dict[str, Record] = field(default_factory=dict)
    lease: Holder | None = None
    made: int = 0

    def apply(self, step: object) -> Holder | Record | Answer:
        if isinstance(step, TakeName):
            if self.lease is not None:
                return Answer.REFUSED
            self.made += 1
            self.lease = Holder(f"lease-{self.made}", "1", step.record.name, step.record.uid)
            return self.lease
        if isinstance(step, ReadName):
            return self.lease or Answer.MISSING
        if isinstance(step, LookAtHolder):
            return self.pods.get(step.holder.pod, Answer.MISSING)
        assert isinstance(step, DropName)
        if self.lease is None:
            return Answer.MISSING
        if self.lease != step.holder:
            return Answer.REFUSED
        self.lease = None
        return Answer.MISSING


@dataclass
class Login:
    """One login at some gateway: its claimed pod, and where its attempt is."""

    pod: Record
    attempt: NameAttempt


class Naming(RuleBasedStateMachine):
    """Any number of logins to one name. What they enter is never two pods that live."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.logins: list[Login] = []
        self.entered: set[str] = set()
        self.condemned: list[Holder] = []
        self.late: list[object] = []
        self.count = 0

    def pick(self, which: int) -> Login | None:
        return self.logins[which % len(self.logins)] if self.logins else None

    def after(self, login: Login) -> None:
        step = login.attempt.step
        if isinstance(step, GiveUp):
            self.logins.remove(login)
        elif isinstance(step, Held):
            self.logins.remove(login)
            assert step.record is not None
            living = self.world.pods.get(step.record.name)
            # Who joins sends a patch: a pod that has ended meanwhile refuses it.
            if living is not None and living.uid == step.record.uid and living.counts:
                self.entered.add(living.uid)
            if step.record.uid != login.pod.uid:
                self.world.pods.pop(login.pod.name, None)

    @rule()
    def log_in(self) -> None:
        self.count += 1
        pod = claimed(f"u{self.count}", name=f"p{self.count}")
        self.world.pods[pod.name] = pod
        self.logins.append(Login(pod, NameAttempt(pod)))

    @rule(which=st.integers(0, 9))
    def go_on(self, which: int) -> None:
        login = self.pick(which)
        if login is not None:
            login.attempt.answered(self.world.apply(login.attempt.step))
            self.after(login)

    @rule(which=st.integers(0, 9), applied=st.sampled_from(["before", "never", "late"]))
    def lose_an_answer(self, which: int, applied: str) -> None:
        login = self.pick(which)
        if login is not None:
            if applied == "before":
                self.world.apply(login.attempt.step)
            elif applied == "late":
                self.late.append(login.attempt.step)
            login.attempt.answered(Answer.UNKNOWN)
            self.after(login)

    @rule()
    def a_late_request_arrives(self) -> None:
        if self.late:
            self.world.apply(self.late.pop())

    @rule(which=st.integers(0, 9))
    def kill(self, which: int) -> None:
        """The gateway of a login is killed; later its pod is found and deleted unless its user has come back to it."""
        login = self.pick(which)
        if login is not None:
            self.logins.remove(login)

    @rule(which=st.integers(0, 9))
    def end_a_pod(self, which: int) -> None:
        names = sorted(self.world.pods)
        if names:
            name = names[which % len(names)]
            self.world.pods[name] = replace(self.world.pods[name], deleting=True)

    @rule(which=st.integers(0, 9))
    def a_pod_is_gone(self, which: int) -> None:
        names = [name for name, pod in sorted(self.world.pods.items()) if pod.deleting]
        if names:
            del self.world.pods[names[which % len(names)]]

    @rule()
    def the_collector_decides(self) -> None:
        lease = self.world.lease
        if lease is not None and lease.pod not in self.world.pods:
            self.condemned.append(lease)

    @rule()
    def the_collector_deletes_by_uid(self) -> None:
        lease = self.world.lease
        if self.condemned and lease is not None and lease.uid == self.condemned.pop().uid:
            self.world.lease = None

    @invariant()
    def one_living_sandbox_at_most(self) -> None:
        assert len(list(self.living())) <= 1

    def living(self) -> Iterator[Record]:
        return (pod for pod in self.world.pods.values() if pod.uid in self.entered and pod.counts)

    def teardown(self) -> None:
        """Whatever has happened, one more login gets in, in a few requests."""
        self.log_in()
        (login, requests) = self.logins[-1], 0
        while not isinstance(login.attempt.step, Held):
            login.attempt.answered(self.world.apply(login.attempt.step))
            requests += 1
        self.after(login)
        assert requests <= 5
        assert len(list(self.living())) == 1


TestNaming = Naming.TestCase
TestNaming.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
