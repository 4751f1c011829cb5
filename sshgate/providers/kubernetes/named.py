"""Named sandboxes as pods: one name, one pod, whichever gateway is used.

The pod's name is derived from the user and the sandbox's name. The API server accepts a name once, so creating the pod
is the compare-and-swap between gateways. Named sandboxes always start cold: two gateways could each claim a different
warm pod for the same name, and a home must be in the pod's spec anyway. While a gateway has channels in the sandbox,
an annotation of the pod (the attachment) names its instance. ``sweep`` removes our attachments that are stale after a
lost response; those of dead instances are removed by the leader's reaper.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from sshgate.errors import GateError, StartFailed, Unavailable
from sshgate.lifecycle import schema as labels
from sshgate.lifecycle.claim import MOST_UNKNOWN
from sshgate.lifecycle.join import Join, Make, Wait, join
from sshgate.lifecycle.records import Record
from sshgate.lifecycle.registry import Registry
from sshgate.lifecycle.requests import Answer, Claim, Delete, attach_patch, detach_patch, named_annotations
from sshgate.providers.kubernetes import podspec
from sshgate.providers.kubernetes.api import errors as failures
from sshgate.providers.kubernetes.api.client import ApiServer
from sshgate.providers.kubernetes.api.objects import Pod
from sshgate.providers.kubernetes.deletion import nothing_to_remove
from sshgate.providers.kubernetes.homes import KubernetesHomes, VolumeClaim
from sshgate.providers.kubernetes.inspection import list_sandboxes
from sshgate.providers.kubernetes.pods import record_of
from sshgate.providers.kubernetes.podspec import Owner
from sshgate.providers.kubernetes.sandbox import KubernetesSandbox
from sshgate.sandbox.interfaces import Admit, Attachment, Listed, Notice, Order, Sandbox
from sshgate.sandbox.side_execs import ExecLimits

# How long a login waits until the previous sandbox of the same name is gone; usually a second or two.
GONE_SECONDS = 30.0
SWEEP_SECONDS = 5.0
# Attempts to make or join a sandbox that others change at the same moment, and seconds between them.
TRIES = 6
TRY_AGAIN = 0.1
# Seconds between attempts to delete a pod that the kubelet changes at the same moment.
UNUSED_PAUSES = (0.05, 0.3, 1.0, 3.0)

CreatePod = Callable[[Callable[[], Awaitable[Pod]]], Awaitable[Pod]]


class KubernetesNamed:
    """The ``NamedSandboxes`` of one gateway.

    ``known`` returns a pod as the watch last showed it; ``create_pod`` evicts warm pods if there is no room.
    """

    outlast = True

    def __init__(
        self,
        api: ApiServer,
        registry: Registry,
        owner: Owner,
        homes: KubernetesHomes,
        known: Callable[[str], Pod | None],
        create_pod: CreatePod,
        limits: ExecLimits,
    ) -> None:
        self._api = api
        self._registry = registry
        self._owner = owner
        self._homes = homes
        self._known = known
        self._create_pod = create_pod
        self._limits = limits
        self._here: dict[str, _Here] = {}
        self._busy: dict[str, _Lock] = {}
        self._detaching: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<KubernetesNamed {len(self._here)} attached, {len(self._detaching)} detaching>"

    def start(self) -> None:
        """Start ``sweep`` every ``SWEEP_SECONDS``."""
        self._task = asyncio.create_task(self._sweeping())

    async def close(self, seconds: float) -> None:
        """Detach from all of them, within ``seconds``; the sandboxes keep running without this gateway."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for name, here in self._here.items():
            here.count = 0
            here.sandbox.abandon()
            self._detach_soon(name, here)
        if self._detaching:
            await asyncio.wait(tuple(self._detaching), timeout=seconds)
        left = tuple(self._detaching)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def observe(self, pod: Pod, gone: bool) -> None:
        """Take note of a change of a pod, or of its end (``gone``), from the watch."""
        here = self._here.get(pod.metadata.name)
        if here is not None:
            here.sandbox.observe(pod, gone)

    # --- NamedSandboxes ---

    def profile(self, user: str, name: str) -> str | None:
        record = self._registry.cache.named(labels.named_pod(user, name))
        theirs = record is not None and record.user_hash == labels.user_hash(user)
        return record.profile if record is not None and theirs and record.counts else None

    @failures.raised_as(StartFailed)
    async def join(self, order: Order, notice: Notice, admit: Admit) -> Attachment:
        assert order.name is not None
        pod = labels.named_pod(order.user, order.name)
        async with self._alone(pod):
            record, made = await self._one(pod, order, notice)
            return await self._attach(record, order, notice, made)

    @failures.raised_as(Unavailable)
    async def list(self, user: str | None) -> list[Listed]:
        now = self._registry.now
        cache = self._registry.cache
        found = cache.of_user(user, now) if user is not None else cache.claimed(now)
        return await list_sandboxes(self._api, found, self._homes, user, now)

    @failures.raised_as(Unavailable)
    async def end(self, user: str, name: str) -> str | None:
        record = await self._look(labels.named_pod(user, name))
        if record is None or not record.counts or record.user_hash != labels.user_hash(user):
            return None
        self._registry.cache.expectations.delete(record.uid, self._registry.now.mono)
        if not await self._registry.delete(Delete(record, "ended by its user", untouched=False)):
            raise failures.unreachable()
        return record.name

    # --- joining ---

    async def _one(self, pod: str, order: Order, notice: Notice) -> tuple[Record, bool]:
        """The pod of this name, with this gateway attached to it, and whether this call created it."""
        assert order.name is not None
        registry = self._registry
        record = registry.cache.named(pod)
        until = registry.now.mono + GONE_SECONDS
        unknown = tries = 0
        while True:
            step = join(record, order.user, order.name, order.profile.name if order.chosen else None)
            if not isinstance(step, Wait):
                if tries == TRIES:
                    raise StartFailed(
                        f"the cluster does not let you into your sandbox {order.name!r}; ask your operator."
                    )
                if tries > 1:  # the first one may have been decided on an old state
                    await asyncio.sleep(TRY_AGAIN)
                tries += 1
            if isinstance(step, Make):
                made = await self._make(order)
                if made is not None:
                    return made, True
                record = await self._look(pod)
            elif isinstance(step, Join):
                here = self._here.get(pod)
                if here is not None and here.count and here.sandbox.usable and here.sandbox.uid == step.record.uid:
                    return step.record, False
                answer = await registry.patch(step.record, attach_patch(step.record, registry.instance, registry.now))
                if isinstance(answer, Record):
                    return answer, False
                unknown += answer is Answer.UNKNOWN
                if unknown >= MOST_UNKNOWN:
                    raise failures.silent(self._api.timeout)
                record = step.record if answer is Answer.UNKNOWN else await self._look(pod)
            else:
                if registry.now.mono > until:
                    raise StartFailed(f"your last sandbox {order.name!r} is still ending; try again in a minute.")
                await self._forget(step, notice)
                record = registry.cache.named(pod)

    async def _make(self, order: Order) -> Record | None:
        """Create the pod; ``None`` if one of its name exists."""
        registry = self._registry
        registry.admit(order.user, order.session)
        home: VolumeClaim | None = None
        try:
            home = await self._homes.prepare(order)
            lifetime, detached = podspec.lifetime(order.profile), order.profile.limits.detached
            claim = Claim(order.user, order.session, self._owner.gateway, registry.instance, lifetime, detached)
            manifest = podspec.claimed_pod(order, self._owner, "", named_annotations(claim, registry.now))
            record = record_of(await self._create_pod(lambda: self._api.create_pod(manifest)))
            registry.update(record)
            return record
        except failures.Conflict:
            return None
        except BaseException:
            if home is not None:
                self._soon(self._undo(home, labels.named_pod(order.user, order.name or "")))
            raise
        finally:
            # From now on the limits count the pod itself instead of the reservation.
            registry.end(order.session)

    async def _forget(self, step: Wait, notice: Notice) -> None:
        registry, record = self._registry, step.record
        notice("waiting for the last one of this name to be gone")
        if step.delete:
            registry.cache.expectations.delete(record.uid, registry.now.mono)
            await registry.delete(Delete(record, "ended", untouched=False))
        await asyncio.wait((registry.changed(),), timeout=1.0)

    async def _attach(self, record: Record, order: Order, notice: Notice, made: bool) -> Attachment:
        here = self._here.get(record.name)
        if here is None or here.sandbox.uid != record.uid or not here.sandbox.usable:
            pod = self._known(record.name)
            if pod is None or pod.metadata.uid != record.uid:
                pod = await self._api.get_pod(record.name)
            sandbox = KubernetesSandbox(self._api, pod, order.profile, self._discard, self._limits, order.user, notice)
            here = self._here[record.name] = _Here(sandbox, made)
        here.count += 1
        expires = record.expires_at
        limit = podspec.lifetime(order.profile)
        left = limit if expires is None else max(0.0, expires - self._registry.now.wall)
        return _Attached(self, record.name, here, made, left)

    def left(self, name: str, here: _Here) -> None:
        """A channel has left; the last one starts the detaching."""
        here.count -= 1
        if not here.count:
            self._detach_soon(name, here)

    def _detach_soon(self, name: str, here: _Here | None) -> None:
        self._soon(self._detach(name, here))

    def _soon(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._detaching.add(task)
        task.add_done_callback(self._detaching.discard)
        return task

    async def _undo(self, home: VolumeClaim, pod: str) -> None:
        """Delete a home that was created for this pod, unless the pod exists after all (a lost response)."""
        # Alone: the next login may have found the home already, and must not lose it while its pod is made.
        async with self._alone(pod):
            with contextlib.suppress(GateError):
                if await self._look(pod) is None:
                    await self._homes.undo(home)

    async def _detach(self, name: str, here: _Here | None) -> None:
        registry = self._registry
        async with self._alone(name):
            now_here = self._here.get(name)
            if now_here is not None and (now_here.count or now_here is not here):
                return  # a channel has joined meanwhile
            self._here.pop(name, None)
            record = registry.cache.named(name)
            if record is None or (here is not None and record.uid != here.sandbox.uid):
                return
            answer = await registry.patch(record, detach_patch(record, registry.instance, registry.now))
            if here is None or not here.unused or answer is Answer.MISSING:
                return
            for pause in UNUSED_PAUSES:
                if await self._delete_unused(record, "given up during the start"):
                    return
                await asyncio.sleep(pause)

    async def _sweeping(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self.sweep()

    def sweep(self) -> None:
        """Detach from the pods that have an attachment of this gateway although it has no channel in them."""
        for record in self._registry.cache.attached(self._registry.instance, self._registry.now):
            here = self._here.get(record.name)
            if record.name not in self._busy and (here is None or not here.count):
                self._detach_soon(record.name, here)

    async def _look(self, pod: str) -> Record | None:
        """Read the pod from the API server; ``None`` if there is none. Raises ``Unavailable``."""
        known = self._registry.cache.named(pod)
        try:
            record = record_of(await self._api.get_pod(pod))
        except failures.NotFound:
            if known is not None:  # not a newer one of this name, which the watch may have shown meanwhile
                self._registry.remove(known.uid)
            return None
        self._registry.update(record)
        return record

    def _discard(self, sandbox: KubernetesSandbox) -> asyncio.Future[None]:
        """The sandbox could not be entered: delete it if it was just created or will never run again, else keep it.

        One that existed before may hold programs that its user left running, and the cause may be temporary (the
        node's container runtime is down). The next login tries again, and the user can end it.
        """
        here = self._here.get(sandbox.id)
        if here is None or here.sandbox is not sandbox or not here.unused:
            return nothing_to_remove()
        return asyncio.shield(self._soon(self._delete_failed(sandbox)))

    async def _delete_failed(self, sandbox: KubernetesSandbox) -> None:
        async with self._alone(sandbox.id):
            here = self._here.get(sandbox.id)
            if here is None or here.sandbox is not sandbox or not here.unused:
                return
            record = self._registry.cache.named(sandbox.id)
            if record is not None and record.uid == sandbox.uid:
                # Its user waits for this. If it fails, the detaching tries again.
                await self._delete_unused(record, "could not be started")

    async def _delete_unused(self, record: Record, reason: str) -> bool:
        """Delete a pod in which nothing runs, unless another gateway has attached to it. The caller has its lock.

        Returns False without an answer, or if it was changed meanwhile: by the kubelet, or by another gateway.
        """
        registry = self._registry
        known = await registry.look(record)
        if not isinstance(known, Record):
            return known is Answer.MISSING
        if known.uid != record.uid or known.attached - {registry.instance}:
            return True
        registry.cache.expectations.delete(known.uid, registry.now.mono)
        return await registry.delete(Delete(known, reason, untouched=True))

    @asynccontextmanager
    async def _alone(self, pod: str) -> AsyncIterator[None]:
        """Serialise changes of one pod by this gateway. A lock exists only while somebody holds or awaits it."""
        lock = self._busy.setdefault(pod, _Lock())
        lock.wanted += 1
        try:
            async with lock:
                yield
        finally:
            lock.wanted -= 1
            if not lock.wanted:
                del self._busy[pod]


class _Lock(asyncio.Lock):
    wanted = 0


class _Here:
    """A named sandbox, with the number of this gateway's channels in it."""

    def __init__(self, sandbox: KubernetesSandbox, made: bool) -> None:
        self.sandbox = sandbox
        self.made = made
        self.count = 0

    @property
    def unused(self) -> bool:
        """Whether nothing runs in it: it was made here and not entered, or it will never run again."""
        return not self.sandbox.entered and (self.made or self.sandbox.phase.over)


class _Attached:
    """The ``Attachment`` of one channel."""

    def __init__(self, named: KubernetesNamed, name: str, here: _Here, made: bool, left: float) -> None:
        self.sandbox: Sandbox = here.sandbox
        self.made = made
        self.left = left
        self._named = named
        self._name = name
        self._here: _Here | None = here

    async def leave(self) -> None:
        here, self._here = self._here, None
        if here is not None:
            self._named.left(self._name, here)
