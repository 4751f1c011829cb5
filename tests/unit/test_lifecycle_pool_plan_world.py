"""Several gateways around one API server: lost races, unknown outcomes, watches that lag, crashes.

What must hold at every moment is asserted at every moment; what must come about is asserted when the world
stands still (``teardown``).
"""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sshgate.config.model import Limits
from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.pool_plan import Target
from sshgate.lifecycle.records import Stage, State
from tests.unit.modelled_cluster import Cluster, record_from
from tests.unit.modelled_gateway import PROFILE, Gateway, Request, Session, deliver

SETTLE = 3.0
USERS = ("ada", "bob", "eve")
# Steps of four seconds without a change: longer than an expectation lives, a gateway may be silent, a pool pauses.
QUIET = 80
FATES = ("done", "done", "done", "done", "request lost", "answer lost", "late")


class World(RuleBasedStateMachine):
    """Rules move one thing by one step; hypothesis looks for the order that breaks something."""

    gateway_count = 2
    fates: tuple[str, ...] = FATES

    def __init__(self) -> None:
        super().__init__()
        self.instances = 0
        self.logins = 0
        self.sessions: list[Session] = []
        self.late: list[Request] = []
        self.gateways: list[Gateway] = []
        self.template = "t1"

    @initialize(size=st.integers(0, 5), limit=st.integers(3, 8), each=st.integers(1, 4), capacity=st.integers(4, 12))
    def begin(self, size: int, limit: int, each: int, capacity: int) -> None:
        self.size = size
        self.limits = Limits(sandboxes=limit, sandboxes_per_user=each)
        self.cluster = Cluster(capacity)
        self.gateways = [self.start() for _ in range(self.gateway_count)]
        for _ in range(4):
            self.settle_once()

    def now(self) -> Now:
        return Now(self.cluster.time, self.cluster.time - 900_000)

    def start(self) -> Gateway:
        self.instances += 1
        gateway = Gateway(f"life{self.instances}", self.cluster, self.limits, self.now, SETTLE, self.on_delete)
        gateway.relist()
        gateway.presence.count_time(self.now().mono)
        return gateway

    def targets(self) -> list[Target]:
        return [Target(PROFILE, self.template, self.size)]

    def on_delete(self, uid: str, reason: str) -> None:
        """Whoever is in a sandbox keeps it: only its own logout deletes it while its gateway lives."""
        users = [one for one in self.live() if one.uid == uid]
        pod = next(pod for pod in self.cluster.pods.values() if pod["metadata"]["uid"] == uid)
        assert not users or pod["status"]["phase"] == "Failed", f"{reason}: {users[0].id} was still in it"

    def live(self) -> list[Session]:
        return [one for gateway in self.gateways for one in gateway.sessions.values() if not one.over]

    # --- what happens ---

    @rule(which=st.integers(0, 9), user=st.sampled_from(USERS))
    def login(self, which: int, user: str) -> None:
        self.logins += 1
        gateway = self.gateways[which % len(self.gateways)]
        if gateway.login(user, f"s{self.logins}", self.template):
            self.sessions.append(gateway.sessions[f"s{self.logins}"])

    @precondition(lambda self: self.live())
    @rule(which=st.integers(0, 99))
    def logout(self, which: int) -> None:
        gateway, session = [(g, s) for g in self.gateways for s in g.sessions.values() if not s.over][
            which % len(self.live())
        ]
        gateway.logout(session)

    @rule(which=st.integers(0, 99), fate=st.sampled_from(FATES))
    def request(self, which: int, fate: str) -> None:
        pending = [(gateway, request) for gateway in self.gateways for request in gateway.outbox]
        if not pending:
            return
        gateway, request = pending[which % len(pending)]
        gateway.outbox.remove(request)
        fate = fate if fate in self.fates else "done"
        if fate == "late":
            self.late.append(request)
        self.check_claim(request, fate)
        deliver(request, fate in ("done", "answer lost"), fate == "done")

    @rule(which=st.integers(0, 99))
    def arrive_late(self, which: int) -> None:
        if self.late:
            request = self.late.pop(which % len(self.late))
            request.answer = lambda _: None
            deliver(request, arrives=True, answered=False)

    @rule(which=st.integers(0, 9), count=st.integers(1, 20))
    def watch(self, which: int, count: int) -> None:
        self.gateways[which % len(self.gateways)].watch(count)

    @rule(which=st.integers(0, 9))
    def relist(self, which: int) -> None:
        self.gateways[which % len(self.gateways)].relist()

    @rule(which=st.integers(0, 99), outcome=st.sampled_from(("ready", "ready", "ready", "failed")))
    def node_works(self, which: int, outcome: str) -> None:
        if self.cluster.pods:
            self.cluster.work(sorted(self.cluster.pods)[which % len(self.cluster.pods)], outcome)

    @rule()
    def nodes_work(self) -> None:
        for name in sorted(self.cluster.pods):
            self.cluster.work(name)

    @rule(which=st.integers(0, 9))
    def refill(self, which: int) -> None:
        gateway = self.gateways[which % len(self.gateways)]
        before = gateway.book.expectations.creates | set()
        gateway.refill(self.targets())
        if gateway.book.expectations.creates != before:
            assert gateway.book.total(self.now()) <= self.limits.sandboxes, "made more than there may be"
        assert gateway.refill(self.targets()) == 0, "asked again at once, it decided something else"

    @rule()
    def pulse(self) -> None:
        """What usually happens within a second: everything arrives, starts, and is seen."""
        self.deliver_all()
        self.nodes_work()
        self.cluster.time += 0.5
        for gateway in self.gateways:
            gateway.watch(10_000)
            gateway.refill(self.targets())

    @rule(which=st.integers(0, 9))
    def reap(self, which: int) -> None:
        self.gateways[which % len(self.gateways)].reap()

    @rule(seconds=st.sampled_from((0.1, 1.0, 4.0, 15.0, 70.0)))
    def time_passes(self, seconds: float) -> None:
        """Gateways that are alive renew; each hears the others every few seconds."""
        while seconds > 0:
            self.cluster.time += min(4.0, seconds)
            seconds -= 4.0
            marked = {notes for pod in self.cluster.pods.values() if (notes := record_from(pod).instance)}
            for gateway in self.gateways:
                for other in self.gateways:
                    gateway.presence.observe(other.instance, str(self.cluster.time))
                gateway.presence.count_time(self.now().mono, marked)

    @rule(which=st.integers(0, 9))
    def crash(self, which: int) -> None:
        """kill -9, and a new life in its place. What it had sent may still arrive."""
        index = which % len(self.gateways)
        old = self.gateways[index]
        self.late += [request for request in old.outbox if "late" in self.fates]
        for session in old.sessions.values():
            session.over = True
        self.gateways[index] = self.start()

    @rule(template=st.sampled_from(("t1", "t2", "t3")))
    def edit_profile(self, template: str) -> None:
        self.template = template

    @rule(size=st.integers(0, 5))
    def resize_pool(self, size: int) -> None:
        self.size = size

    # --- what must always hold ---

    def check_claim(self, request: Request, fate: str) -> None:
        """A claim that will be applied takes a pod that is warm, ready, settled, and not on its way out."""
        if not request.about.startswith("claim") or fate not in ("done", "answer lost"):
            return
        pod = self.cluster.pods.get(request.about.removeprefix("claim "))
        if pod is None or record_from(pod).state is not State.WARM or record_from(pod).deleting:
            return
        uid = pod["metadata"]["uid"]
        assert self.cluster.time - self.cluster.ready_at[uid] >= SETTLE, "claimed before it had settled"

    @invariant()
    def no_pod_is_given_twice(self) -> None:
        won = [session.uid for session in self.sessions if session.uid is not None]
        assert len(won) == len(set(won))

    @invariant()
    def every_session_has_its_own_pod_of_its_template(self) -> None:
        for session in self.live():
            found = [pod for pod in self.cluster.pods.values() if pod["metadata"]["uid"] == session.uid]
            for record in map(record_from, found):
                assert record.session == session.id
                assert record.template == session.template
                assert record.state is State.CLAIMED
                assert record.deadline is not None

    @invariant()
    def limits_hold(self) -> None:
        for gateway in self.gateways:
            live = [session for session in gateway.sessions.values() if not session.over]
            assert len(live) <= self.limits.sandboxes
            for user in USERS:
                assert sum(session.user == user for session in live) <= self.limits.sandboxes_per_user

    # --- what must come about ---

    def teardown(self) -> None:
        if not self.gateways:
            return
        for session in self.live()[::2]:
            next(g for g in self.gateways if session.id in g.sessions).logout(session)
        while self.late:
            self.arrive_late(0)
        self.cluster.capacity = 100
        quiet = 0
        for _ in range(800):
            quiet = 0 if self.settle_once() else quiet + 1
            if quiet > QUIET:
                self.assert_settled()
                return
        raise AssertionError("it never comes to rest")

    def settle_once(self) -> int:
        there = {pod["metadata"]["uid"] for pod in self.cluster.pods.values()}
        for gateway in self.gateways:
            for session in gateway.sessions.values():
                if not session.over and session.uid is not None and session.uid not in there:
                    gateway.logout(session)  # its programs ended with the pod, and so did the session
        self.deliver_all()
        self.nodes_work()
        for gateway in self.gateways:
            gateway.watch(10_000)
        self.time_passes(4.0)
        leader = self.gateways[0]
        return leader.refill(self.targets()) + sum(gateway.reap() for gateway in self.gateways)

    def deliver_all(self) -> None:
        for gateway in self.gateways:
            for request in gateway.outbox[:]:
                gateway.outbox.remove(request)
                self.check_claim(request, "done")
                deliver(request, arrives=True, answered=True)

    def assert_settled(self) -> None:
        records = [record_from(pod) for pod in self.cluster.pods.values()]
        warm = [record for record in records if record.state is State.WARM]
        taken = [record for record in records if record.state is State.CLAIMED]
        assert {record.template for record in warm} <= {self.template}
        assert all(record.stage is Stage.READY for record in warm)
        assert len(warm) == max(0, min(self.size, self.limits.sandboxes - len(taken)))
        sessions = {session.id for session in self.live()}
        assert {record.session for record in taken} <= sessions, "a sandbox was left behind"
        assert len({record.session for record in taken}) == len(taken)


class OneGatewayWorld(World):
    """With one gateway, and an API server that answers, the limits hold to the last pod in the cluster."""

    gateway_count = 1
    fates = ("done",)

    def crash(self, which: int) -> None:
        """Not here: the sandboxes of an earlier life count until they are reaped, and so does a new one's view."""

    @invariant()
    def the_cluster_is_within_its_limits(self) -> None:
        if not self.gateways:
            return
        records = [record_from(pod) for pod in self.cluster.pods.values()]
        # A pod whose session has ended is on its way out, and does not keep its user from logging in again.
        live = {session.id for session in self.live()}
        taken = [one for one in records if one.state is State.CLAIMED and one.counts and one.session in live]
        assert len(taken) <= self.limits.sandboxes
        for user in USERS:
            assert sum(record.user == user for record in taken) <= self.limits.sandboxes_per_user


_SETTINGS = settings(max_examples=20, stateful_step_count=50)
TestWorld = World.TestCase
TestWorld.settings = _SETTINGS
TestOneGatewayWorld = OneGatewayWorld.TestCase
TestOneGatewayWorld.settings = _SETTINGS
