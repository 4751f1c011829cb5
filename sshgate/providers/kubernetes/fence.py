"""Whether network policies are in force in the namespace's pods, by what launchers have found (``sandbox.probe``).

A program of a user starts when a launcher in its pod has found the probed address closed. In a cluster whose network
does not enforce policies this never happens, and nothing must wait for it. So with ``network.probe: auto``:

* While the namespace has no policy for outgoing connections, nothing is looked at.
* Once the address was found closed in a new pod of a profile, policies are enforced there. A pod of it in which the
  address stays open is an error.
* If it stays open in a new pod before that, policies are taken as not enforced for the profile: the log warns, and no
  login waits from then on. A launcher that is parked in a warm pod looks again every minute.

An address that is configured is always waited for, in every profile. A pod counts as new until a program of a user may
have run in it: what is found in others concerns only them, so no user can make others' programs start early, or not at
all.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

import msgspec
import structlog

from sshgate.config.model import Profile
from sshgate.config.values import address
from sshgate.errors import GateError, StartFailed
from sshgate.providers.kubernetes.api.client import ApiServer
from sshgate.providers.kubernetes.api.errors import Forbidden, NotFound
from sshgate.providers.kubernetes.api.objects import Listing, ListMeta, Object
from sshgate.sandbox.probe import Probe, Verdict

# Seconds that launchers look before policies count as not enforced at all, and where they are known to be enforced.
FIRST_SECONDS = 10
ENFORCED_SECONDS = 30
# Seconds between looks at the namespace's policies, and at whether they are enforced after all.
AGAIN = 60.0

log = structlog.get_logger("sshgate.sandbox.kubernetes")


class _Spec(Object):
    policy_types: list[str] = msgspec.field(default_factory=list)
    egress: list[msgspec.Raw] = msgspec.field(default_factory=list)


class _Policy(Object):
    spec: _Spec = msgspec.field(default_factory=_Spec)


_policies = msgspec.json.Decoder(Listing[_Policy])


class Fence:
    """What one gateway knows of the network policies; ``of`` makes what each sandbox needs.

    Args:
        setting: ``network.probe``: ``auto``, ``off``, or an address with a port.
    """

    def __init__(self, api: ApiServer, setting: str) -> None:
        self._api = api
        self._setting = setting
        self._configured = None if setting in ("auto", "off") else address(setting)
        self._wanted = self._configured is not None
        # Whether policies are enforced, by profile; of others it is not known yet.
        self._enforced: dict[str, bool] = {}
        self._looked: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Fence enforced: {self._enforced}>" if self._wanted else "<Fence nothing to wait for>"

    async def start(self) -> None:
        """Look at the namespace's policies, now and every minute. Raises as ``ApiServer.request`` does."""
        if self._setting == "auto":
            await self._look()
            self._task = asyncio.create_task(self._looking())
        elif self._setting == "off":
            log.info("network.unrestricted", reason="network.probe is off: no program waits for a network policy")

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def of(self, profile: Profile, new: bool) -> PodFence:
        """The fence of one pod. ``new``: no program of a user can have run in it yet."""
        return PodFence(self, profile, new)

    def probe(self, profile: str, parked: bool) -> Probe | None:
        """What a launcher in a pod without proof looks at; see ``Sandbox.probe``."""
        if not self._wanted:
            return None
        if self._configured is not None:
            return Probe(self._configured.host, str(self._configured.port), ENFORCED_SECONDS)
        enforced = self._enforced.get(profile)
        if enforced is False:
            if not parked or time.monotonic() - self._looked[profile] < AGAIN:
                return None
            self._looked[profile] = time.monotonic()
        return Probe("", "", ENFORCED_SECONDS if enforced else FIRST_SECONDS)

    def learn(self, profile: str, closed: bool) -> None:
        """Take note of what was found in a new pod of this profile."""
        if closed and not self._enforced.get(profile):
            log.info("network.enforced", profile=profile, reason="a new sandbox has found the probed address closed")
            self._enforced[profile] = True
        elif not closed and profile not in self._enforced and self._configured is None:
            self._enforced[profile], self._looked[profile] = False, time.monotonic()
            log.warning(
                "network.open",
                profile=profile,
                reason=f"after {FIRST_SECONDS} s a new sandbox still reaches the API server: the cluster does not "
                "enforce its network policies, or they allow this. Programs no longer wait; see network.probe",
            )

    async def required(self, profile: str) -> bool:
        """Whether a pod in which the address stays open is an error."""
        if self._enforced.get(profile) and self._configured is None:
            with contextlib.suppress(GateError):
                await self._look()  # the policy may have been deleted
        return self._wanted and (self._configured is not None or self._enforced.get(profile, False))

    async def _looking(self) -> None:
        while True:
            await asyncio.sleep(AGAIN)
            with contextlib.suppress(GateError):
                await self._look()

    async def _look(self) -> None:
        path = f"/apis/networking.k8s.io/v1/namespaces/{self._api.namespace}/networkpolicies"
        try:
            found = await self._api.list_all(_policies, path, {}, "list network policies")
        except (Forbidden, NotFound):
            found = Listing(metadata=ListMeta(), items=[_Policy(spec=_Spec(policy_types=["Egress"]))])
        wanted = any("Egress" in one.spec.policy_types or one.spec.egress for one in found.items or ())
        if not wanted and (self._wanted or self._task is None):
            log.info("network.unrestricted", namespace=self._api.namespace, reason="no policy for what sandboxes send")
        self._wanted = wanted


class PodFence:
    """Whether the network policy is in force in one pod."""

    def __init__(self, fence: Fence, profile: Profile, new: bool) -> None:
        self._fence = fence
        self._profile = profile
        self._new = new
        self.stands = False
        """Whether a launcher in it has found the address closed."""
        self.looking = False
        """Whether the launchers in it have something to look at."""

    def __repr__(self) -> str:
        return f"<PodFence {'stands' if self.stands else 'without proof'}>"

    def probe(self, parked: bool) -> Probe | None:
        """See ``Sandbox.probe``."""
        probe = None if self.stands else self._fence.probe(self._profile.name, parked)
        self.looking = probe is not None
        self._new &= self.looking
        return probe

    async def judge(self, verdict: Verdict) -> None:
        """See ``Sandbox.judge``."""
        if verdict is Verdict.BLIND:
            self._new = False
            await asyncio.sleep(self._profile.settle)
            return
        new, self._new = self._new and not self.stands, False
        self.stands |= verdict is Verdict.CLOSED
        if new:
            self._fence.learn(self._profile.name, self.stands)
        if not self.stands and await self._fence.required(self._profile.name):
            raise StartFailed("the network policy is not in force in the sandbox; try again, or ask your operator.")
