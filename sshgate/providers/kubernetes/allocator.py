"""Gives sandboxes to logins: a warm pod is claimed, or one is created, evicting warm ones where there is no room."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from sshgate.config.model import Profile
from sshgate.errors import LimitReached, Unavailable
from sshgate.hold.line import park_resident
from sshgate.lifecycle.claim import ClaimAttempt
from sshgate.lifecycle.parking import Parking
from sshgate.lifecycle.pool_plan import evict_for_login
from sshgate.lifecycle.records import Record, State
from sshgate.lifecycle.registry import Registry
from sshgate.lifecycle.requests import Claim, claim_annotations
from sshgate.providers.kubernetes import podspec
from sshgate.providers.kubernetes.api import errors as failures
from sshgate.providers.kubernetes.api.client import ApiServer
from sshgate.providers.kubernetes.api.objects import Pod
from sshgate.providers.kubernetes.deletion import PodDeleter, nothing_to_remove
from sshgate.providers.kubernetes.fence import Fence
from sshgate.providers.kubernetes.pods import record_of
from sshgate.providers.kubernetes.podspec import Owner
from sshgate.providers.kubernetes.sandbox import Discard, KubernetesSandbox
from sshgate.sandbox.interfaces import Kind, Notice, Order
from sshgate.sandbox.side_execs import NOBODY, ExecLimits
from sshgate.stream.tasks import TaskSet

# If a warm pod is evicted to free quota for a login: seconds that this may take, seconds between tries, and how many
# times to look again for one to evict.
EVICTION_SECONDS = 8.0
EVICTION_PAUSE = 0.25
EVICTION_LOOKS = 2


class PodAllocator:
    """The ephemeral sandboxes of one gateway, from their claim to their deletion, and its parked warm ones.

    Args:
        profiles, templates, kinds: By profile's name; the caller changes them in place when settings change.
        known: Returns a pod as the watch last showed it.
    """

    def __init__(
        self,
        api: ApiServer,
        registry: Registry,
        owner: Owner,
        profiles: Mapping[str, Profile],
        templates: Mapping[str, str],
        kinds: Mapping[str, Sequence[Kind]],
        known: Callable[[str], Pod | None],
        deleter: PodDeleter,
        limits: ExecLimits,
        fence: Fence,
    ) -> None:
        self._api = api
        self._registry = registry
        self._owner = owner
        self._profiles = profiles
        self._templates = templates
        self._known = known
        self._deleter = deleter
        self._limits = limits
        self._fence = fence
        self._sandboxes: dict[str, KubernetesSandbox] = {}
        self._sessions: dict[str, str] = {}
        self._warm: dict[str, KubernetesSandbox] = {}
        self._evictions = TaskSet()
        self.parking = Parking(registry, kinds, self._enter, park_resident, random.random)

    async def create(self, order: Order, notice: Notice) -> KubernetesSandbox:
        """Claim or create a sandbox; see ``Provider.create``."""
        self._registry.admit(order.user, order.session)
        try:
            warm = await self._claimed(order, notice) if order.name is None else None
            return warm or await self._cold(order, notice)
        except BaseException:
            self._give_up(order.session)
            raise

    async def claim(self, order: Order, notice: Notice) -> KubernetesSandbox | None:
        """Claim a warm sandbox for a session that the caller has admitted; ``None`` if there is none.

        It is an ephemeral one until ``hand_over``. Nothing is left when this raises or is cancelled.
        """
        try:
            return await self._claimed(order, notice)
        except BaseException:
            self._give_up(order.session)
            raise

    def hand_over(self, sandbox: KubernetesSandbox, discard: Discard) -> None:
        """A claimed sandbox becomes a named one: ``discard`` deletes its pod from now on, if anything does."""
        self._sandboxes.pop(sandbox.id, None)
        self._sessions.pop(sandbox.id, None)
        sandbox.hand_over(discard)

    async def _claimed(self, order: Order, notice: Notice) -> KubernetesSandbox | None:
        """Claim a warm sandbox; ``None`` if there is none."""
        template = self._templates.get(order.profile.name)
        if template is None:
            return None
        registry = self._registry
        claiming = ClaimAttempt(
            registry.cache, claim_of(order, self._owner), template, order.profile.settle, registry.live_instances
        )
        try:
            async with asyncio.timeout(self._api.timeout + 1):
                record = await registry.claim(claiming, lambda delete: self._remove(delete.record))
        except TimeoutError as error:
            raise failures.silent(self._api.timeout) from error
        return await self._adopt(record, order, notice) if record is not None else None

    def _give_up(self, session: str) -> None:
        """The session has ended without its sandbox: delete the pods that it has claimed."""
        registry = self._registry
        registry.end(session)
        for record in registry.cache.of_session(session, registry.now):
            if record.name not in self._sandboxes:
                self._remove(record)

    def _remove(self, record: Record) -> None:
        self._registry.cache.expectations.delete(record.uid, self._registry.now.mono)
        self._deleter.remove(record.name, record.uid)

    async def _cold(self, order: Order, notice: Notice) -> KubernetesSandbox:
        """Create a pod for this order, evicting warm ones if our limit or a quota requires it."""
        stamps = claim_annotations(claim_of(order, self._owner), self._registry.now)
        manifest = podspec.claimed_pod(order, self._owner, secrets.token_hex(5), stamps)
        pod = await self.make(lambda: self._create(manifest))
        self._registry.update(record_of(pod))
        return self._register(self._sandbox(pod, order.profile, order.user, notice, self._discard, True), order)

    async def make(self, make: Callable[[], Awaitable[Pod]]) -> Pod:
        """Create a pod that a login waits for; evict warm pods if there is no room. Raises as ``make`` does."""
        registry = self._registry
        await self.evict(registry.cache.total(registry.now) - registry.limits.sandboxes)
        until = registry.now.mono + EVICTION_SECONDS
        try:
            return await make()
        except LimitReached:
            looks = 0
            while not await self.evict(1):
                # A warm pod that has just been made, here or by another gateway, is evicted once the watch shows it.
                looks += 1
                if registry.now.mono >= until or (looks > EVICTION_LOOKS and not registry.cache.expectations.creates):
                    raise
                await asyncio.sleep(EVICTION_PAUSE)
        # The evicted pod has to end, and the quota controller has to count again.
        while registry.now.mono < until:
            await asyncio.sleep(EVICTION_PAUSE)
            with contextlib.suppress(LimitReached):
                return await make()
        return await make()

    async def evict(self, count: int, placed: bool = False) -> bool:
        """Evict up to ``count`` warm sandboxes; returns whether any was. ``placed``: only those that have a node."""
        registry = self._registry
        deletes = evict_for_login(registry.cache, count, registry.now, self._templates.values(), placed)
        return any(await asyncio.gather(*(registry.delete(delete) for delete in deletes)))

    async def _adopt(self, record: Record, order: Order, notice: Notice) -> KubernetesSandbox:
        """Turn the pod of ``record``, which was claimed for ``order``, into a sandbox that this gateway deletes.

        The registry must know the session (``admit``) from before the claim's request: a pod claimed by this instance
        without a session is deleted as an orphan. Raises as ``ApiServer.get_pod`` does.
        """
        sandbox = self.parking.take(record.uid)
        if not isinstance(sandbox, KubernetesSandbox):
            sandbox = await self.enter(record, order, notice, self._discard, new=True)
        sandbox.adopt(order, notice)
        return self._register(sandbox, order)

    def _enter(self, record: Record) -> KubernetesSandbox | None:
        """A warm pod as a sandbox to park launchers in; it is not claimed by that.

        ``None`` if the watch does not show the pod yet or any more, or if its profile has been removed.
        """
        known, profile = self._known(record.name), self._profiles.get(record.profile)
        if known is None or known.metadata.uid != record.uid or profile is None:
            return None
        sandbox = self._sandbox(known, profile, NOBODY, lambda text: None, self._discard, True)
        self._warm[record.name] = sandbox
        return sandbox

    async def enter(
        self, record: Record, order: Order, notice: Notice, discard: Discard, new: bool
    ) -> KubernetesSandbox:
        """The pod of a record as a sandbox for this order, which ``discard`` deletes; ``new`` as for ``Fence.of``.

        Raises ``NotFound`` if it has ended, and is not known here any more; otherwise as ``ApiServer.get_pod`` does.
        """
        pod = self._known(record.name)
        if pod is None or pod.metadata.uid != record.uid:
            try:
                pod = await self._api.get_pod(record.name)
                if pod.metadata.uid != record.uid:
                    raise failures.NotFound("another sandbox has its name by now.")
            except failures.NotFound:
                self._registry.remove(record.uid)
                raise
        return self._sandbox(pod, order.profile, order.user, notice, discard, new)

    def _sandbox(
        self, pod: Pod, profile: Profile, user: str, notice: Notice, discard: Discard, new: bool
    ) -> KubernetesSandbox:
        fence = self._fence.of(pod, profile, new)
        return KubernetesSandbox(self._api, pod, profile, discard, self._limits, user, notice, fence)

    def _register(self, sandbox: KubernetesSandbox, order: Order) -> KubernetesSandbox:
        name = sandbox.id
        self._warm.pop(name, None)
        self._sandboxes[name] = sandbox
        self._sessions[name] = order.session
        self._registry.cache.hold(order.session, sandbox.uid)
        known = self._known(name)
        if known is not None:
            sandbox.observe(known, gone=False)
        return sandbox

    async def _create(self, manifest: dict[str, Any]) -> Pod:
        try:
            return await self._api.create_pod(manifest)
        except (Unavailable, asyncio.CancelledError):
            # It is unknown whether the pod was created.
            self._deleter.remove(manifest["metadata"]["name"])
            raise

    def _discard(self, sandbox: KubernetesSandbox) -> asyncio.Future[None]:
        if self._sandboxes.pop(sandbox.id, None) is None:
            return nothing_to_remove()
        self._registry.end(self._sessions.pop(sandbox.id), sandbox.uid)
        return self._deleter.remove(sandbox.id, sandbox.uid)

    def observe(self, pod: Pod, gone: bool) -> None:
        """Take note of a change of a pod, or of its end (``gone``), from the watch."""
        name = pod.metadata.name
        warm = self._warm.pop(name, None) if gone else self._warm.get(name)
        sandbox = self._sandboxes.get(name) or warm
        if sandbox is not None:
            sandbox.observe(pod, gone)
            if sandbox.crowded_out():
                self._evictions.start(self.evict(1, placed=True))
        elif not gone and self._orphaned(pod.metadata.uid):
            self._deleter.remove(name, pod.metadata.uid)

    def discard_all(self) -> None:
        """Begin to delete every sandbox."""
        for sandbox in tuple(self._sandboxes.values()):
            sandbox.abandon()
            self._discard(sandbox)

    async def close(self) -> None:
        """Wait for the evictions under way."""
        await self._evictions.join()

    def _orphaned(self, uid: str) -> bool:
        """Whether it is an ephemeral pod claimed by this instance for a session that does not exist.

        One that was claimed for a name may be another gateway's already: ``reap_plan.orphans`` looks after those.
        """
        record = self._registry.cache.pod(uid)
        if record is None or record.deleting or self._registry.cache.knows_session(record.session):
            return False
        ours = record.instance == self._owner.instance and record.state is State.CLAIMED
        return ours and record.sandbox is None and not record.to_be_named


def claim_of(order: Order, owner: Owner) -> Claim:
    """The claim for this order, as it is written on the pod."""
    detached = order.profile.limits.detached if order.name is not None else None
    return Claim(
        order.user, order.session, owner.gateway, owner.instance, podspec.lifetime(order.profile), detached,
        order.profile.name,
    )  # fmt: skip
