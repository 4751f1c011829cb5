"""Whether network policies are in force in the namespace's pods, by what launchers have found (``sandbox.probe``).

A program of a user starts when a launcher in its pod has found the probed address closed. In a cluster whose network
does not enforce policies this never happens, and nothing must wait for it. So with ``network.probe: auto``:

* While the namespace has no policy for outgoing connections, nothing is looked at.
* Once the address was found closed in ``CONFIRMED`` new pods of a profile, a minute apart each, policies are enforced
  there. A pod of it in which the address stays open is an error from then on.
* If it stays open in a new pod before that, policies are taken as not enforced for the profile: the log warns, and no
  login waits from then on. Once a minute a launcher in a new pod looks again; one that a login waits for, briefly.

One "closed" alone proves little: without an engine, a server of the API that is down looks like it.

An address that is configured is always waited for, in every profile. A pod counts as new until a program of a user may
have run in it, started by this gateway or another: what is found in others concerns only them. So no user can make
others' programs start early, or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import structlog

from sshgate.config.model import Profile
from sshgate.config.values import address
from sshgate.errors import GateError, StartFailed
from sshgate.lifecycle.records import State
from sshgate.lifecycle.schema import NETWORK
from sshgate.providers.kubernetes.api.client import ApiServer
from sshgate.providers.kubernetes.api.errors import Forbidden, NotFound
from sshgate.providers.kubernetes.api.objects import Listing, Object, Pod
from sshgate.providers.kubernetes.pods import record_of
from sshgate.sandbox.probe import Probe, Verdict
from sshgate.stream.tasks import TaskSet
from sshgate.telemetry.rate_limit import RateLimit

# Seconds that launchers look before policies count as not enforced at all, and where they are known to be enforced.
FIRST_SECONDS = 10
ENFORCED_SECONDS = 30
# The same where little can be learned and somebody waits: nothing is known, and the pod is not new; or policies count
# as not enforced.
BRIEF_SECONDS = 2
# Seconds between looks at the namespace's policies, at whether they are enforced after all, and between confirmations.
AGAIN = 60.0
# The number of new pods in which the address was found closed before one that stays open is an error.
CONFIRMED = 3

log = structlog.get_logger("sshgate.sandbox.kubernetes")


class _Expression(Object):
    key: str = ""
    operator: str = ""
    values: list[str] = msgspec.field(default_factory=list)


class _Selector(Object):
    match_labels: dict[str, str] = msgspec.field(default_factory=dict)
    match_expressions: list[_Expression] = msgspec.field(default_factory=list)

    def selects(self, labels: Mapping[str, str]) -> bool:
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            (labels.get(one.key) in one.values if one.values else one.key in labels)
            is (one.operator in ("In", "Exists"))
            for one in self.match_expressions
        )


class _Spec(Object):
    pod_selector: _Selector = msgspec.field(default_factory=_Selector)
    policy_types: list[str] = msgspec.field(default_factory=list)
    egress: list[msgspec.Raw] = msgspec.field(default_factory=list)

    @property
    def restricts(self) -> bool:
        """Whether it is about what pods send."""
        return "Egress" in self.policy_types or bool(self.egress)


class _Policy(Object):
    spec: _Spec = msgspec.field(default_factory=_Spec)


_policies = msgspec.json.Decoder(Listing[_Policy])


@dataclass(slots=True)
class _Found:
    """What is known of one profile."""

    closed: int = 0
    """The number of confirmations that policies are enforced."""
    open: bool = False
    """Whether they count as not enforced."""
    at: float = 0.0
    """The time (monotonic) of the last confirmation, or of the last look while they count as not enforced."""

    @property
    def enforced(self) -> bool:
        return self.closed >= CONFIRMED


class Fence:
    """What one gateway knows of the network policies; ``of`` makes what each sandbox needs.

    Args:
        setting: ``network.probe``: ``auto``, ``off``, or an address with a port.
        instance: the id of this gateway, or worker, as on the pods that it has claimed.
    """

    def __init__(self, api: ApiServer, setting: str, instance: str) -> None:
        self._api = api
        self._setting = setting
        self._configured = None if setting in ("auto", "off") else address(setting)
        self._wanted = self._configured is not None
        self._instance = instance
        self._found: defaultdict[str, _Found] = defaultdict(_Found)
        self._pods: dict[str, PodFence] = {}
        self._looks = TaskSet()
        self._policies: list[_Spec] | None = None
        self._warnings = RateLimit()

    async def start(self) -> None:
        """Look at the namespace's policies, now and every minute. Raises as ``ApiServer.request`` does."""
        if self._setting == "auto":
            await self._look()
        else:
            if self._setting == "off":
                log.info("network.unrestricted", reason="network.probe is off: no program waits for a network policy")
            with contextlib.suppress(GateError):
                await self._look()  # for profiles without a network
        self._looks.start(self._looking())

    async def close(self) -> None:
        """Stop looking."""
        await self._looks.cancel()

    def of(self, pod: Pod, profile: Profile, new: bool) -> PodFence:
        """The fence of one pod, kept until ``forget``. ``new``: no program of a user can have run in it yet."""
        if profile.network == "none" and self._lets_out(pod) and self._warnings.due(profile.name):
            if NETWORK in pod.metadata.labels:
                reason = (
                    f"it has network: none, and the policies of {self._api.namespace} let out what its pods send; "
                    "apply the manifests of this version, or a policy of your own by their label"
                )
            else:
                reason = f"{pod.metadata.name} began before it had network: none; end that sandbox to close its network"
            log.warning("network.open", profile=profile.name, reason=reason)
        found = self._pods.setdefault(pod.metadata.uid, PodFence(self, pod, profile, new))
        found.new &= new
        return found

    def _lets_out(self, pod: Pod) -> bool:
        """Whether the policies, as far as they are known, let the pod send anything: those that select it add up."""
        found = self._restricting(pod)
        return found is not None and (not found or any(one.egress for one in found))

    def concerns(self, pod: Pod) -> bool:
        """Whether a policy may restrict what this pod sends; where that is not known, it may."""
        return self._configured is not None or self._restricting(pod) != []

    def _restricting(self, pod: Pod) -> list[_Spec] | None:
        """The policies that restrict what this pod sends; ``None``: they are not known."""
        if self._policies is None:
            return None
        return [one for one in self._policies if one.restricts and one.pod_selector.selects(pod.metadata.labels)]

    def forget(self, uid: str) -> None:
        """The pod is gone."""
        self._pods.pop(uid, None)

    def probe(self, profile: str, parked: bool, new: bool) -> Probe | None:
        """What a launcher in a pod without proof looks at; see ``Sandbox.probe``."""
        if not self._wanted:
            return None
        if self._configured is not None:
            return Probe(self._configured.host, str(self._configured.port), ENFORCED_SECONDS)
        found = self._found[profile]
        if found.open:
            if not (parked or new) or time.monotonic() - found.at < AGAIN:
                return None
            found.at = time.monotonic()
            return Probe("", "", FIRST_SECONDS if parked else BRIEF_SECONDS)
        if found.enforced:
            return Probe("", "", ENFORCED_SECONDS)
        return Probe("", "", FIRST_SECONDS if new or found.closed else BRIEF_SECONDS)

    async def learn(self, pod: Pod, profile: str, closed: bool) -> None:
        """Take note of what was found in this pod, which was new to this gateway.

        Another gateway may have started a program of its user there meanwhile, which could have changed what our
        launcher found. So what would be news counts only if the pod shows, read after that, that nobody has.
        """
        if self._news(profile, closed) and await self._untouched(pod) and self._news(profile, closed):
            found = self._found[profile]
            if closed:
                if not found.closed:
                    log.info(
                        "network.enforced", profile=profile, reason="a new sandbox found the probed address closed"
                    )
                found.closed, found.open = found.closed + 1, False
            else:
                found.closed, found.open = 0, True
                log.warning(
                    "network.open",
                    profile=profile,
                    reason=f"after {FIRST_SECONDS} s a new sandbox still reaches the API server: the cluster does not "
                    "enforce its network policies, or they allow this. Programs no longer wait; see network.probe",
                )
            found.at = time.monotonic()

    def _news(self, profile: str, closed: bool) -> bool:
        found = self._found[profile]
        if found.enforced:
            return False
        if closed:
            return not found.closed or time.monotonic() - found.at >= AGAIN
        return not found.open and self._configured is None

    async def _untouched(self, pod: Pod) -> bool:
        """Whether no gateway but this one can have started anything in it, by the pod as it is now."""
        try:
            record = record_of(await self._api.get_pod(pod.metadata.name))
        except GateError:
            return False
        ours = record.state is State.CLAIMED and record.instance == self._instance
        alone = ours and not record.attached - {self._instance} and record.detached_at is None
        return record.uid == pod.metadata.uid and (record.state is State.WARM or alone)

    async def required(self, profile: str) -> bool:
        """Whether a pod in which the address stays open is an error."""
        enforced = self._found[profile].enforced
        if enforced and self._configured is None:
            with contextlib.suppress(GateError):
                await self._look()  # the policy may have been deleted
        return self._wanted and (self._configured is not None or enforced)

    async def _looking(self) -> None:
        while True:
            await asyncio.sleep(AGAIN)
            with contextlib.suppress(GateError):
                await self._look()

    async def _look(self) -> None:
        path = f"/apis/networking.k8s.io/v1/namespaces/{self._api.namespace}/networkpolicies"
        try:
            found = await self._api.list_all(_policies, path, {}, "list network policies")
            self._policies = [one.spec for one in found.items or ()]
            wanted = any(one.restricts for one in self._policies)
        except (Forbidden, NotFound):
            self._policies, wanted = None, True
        if self._setting != "auto":
            return
        if not wanted and (self._wanted or not len(self._looks)):
            log.info("network.unrestricted", namespace=self._api.namespace, reason="no policy for what sandboxes send")
        self._wanted = wanted


class PodFence:
    """Whether the network policy is in force in one pod."""

    def __init__(self, fence: Fence, pod: Pod, profile: Profile, new: bool) -> None:
        self._fence = fence
        self._pod = pod
        self._profile = profile
        self._parked = False
        self._passed = False
        self.new = new
        """Whether no program of a user can have run in it yet, as far as this gateway knows."""
        self.stands = False
        """Whether a launcher in it has found the address closed, or has waited for ``settle`` instead."""
        self.looking = False
        """Whether the launchers in it have something to look at."""

    def probe(self, parked: bool) -> Probe | None:
        # Where a program of the user was let in without proof, the next one need not wait for any.
        done = self.stands or self._passed or not self._fence.concerns(self._pod)
        probe = None if done else self._fence.probe(self._profile.name, parked, self.new)
        self._parked = parked
        self.looking = probe is not None
        self.new &= self.looking
        return probe

    async def judge(self, verdict: Verdict) -> None:
        new, self.new = self.new and not self.stands, False
        if verdict is Verdict.BLIND:
            if not self.stands:
                await asyncio.sleep(self._profile.settle)
            self.stands = True
            return
        self.stands |= verdict is Verdict.CLOSED
        if new:
            await self._fence.learn(self._pod, self._profile.name, self.stands)
        if not self.stands:
            if await self._fence.required(self._profile.name):
                raise StartFailed("the network policy is not in force in the sandbox; try again, or ask your operator.")
            self._passed = not self._parked
