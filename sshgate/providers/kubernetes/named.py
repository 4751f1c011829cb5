"""Named sandboxes as pods: one name, one pod, whichever gateway is used.

A Lease says which pod has a name (``names``, ``lifecycle.naming``). Where the profile has no home, which must be in the
pod's spec from the start, the pod is a warm one if there is any. A cold one has a name derived from the user and the
sandbox's name, by which gateways of older versions find it; while one of those lives, nothing starts warm here.

While a gateway has channels in the sandbox, an annotation of the pod (the attachment) names its instance. ``sweep``
removes our attachments that are stale after a lost response; the leader's reaper removes those of dead instances.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Sequence
from functools import partial
from weakref import WeakValueDictionary

from sshgate.errors import GateError, StartFailed, Unavailable
from sshgate.hold.line import attach_idle
from sshgate.lifecycle import schema as labels
from sshgate.lifecycle.claim import MOST_UNKNOWN
from sshgate.lifecycle.join import Join, Make, Wait, join
from sshgate.lifecycle.records import Record, Stage
from sshgate.lifecycle.registry import LOOK_AFTER, Registry
from sshgate.lifecycle.requests import Answer, Delete, attach_patch, detach_patch, named_annotations
from sshgate.providers.kubernetes import podspec
from sshgate.providers.kubernetes.allocator import PodAllocator, claim_of
from sshgate.providers.kubernetes.api import errors as failures
from sshgate.providers.kubernetes.api.client import ApiServer
from sshgate.providers.kubernetes.api.objects import Pod
from sshgate.providers.kubernetes.deletion import nothing_to_remove
from sshgate.providers.kubernetes.homes import KubernetesHomes, VolumeClaim
from sshgate.providers.kubernetes.inspection import list_sandboxes
from sshgate.providers.kubernetes.names import Names, bearing
from sshgate.providers.kubernetes.pods import record_of
from sshgate.providers.kubernetes.podspec import Owner
from sshgate.providers.kubernetes.returning import Here, Returning
from sshgate.providers.kubernetes.sandbox import KubernetesSandbox
from sshgate.sandbox.interfaces import Admit, Attachment, Listed, Notice, Order, Sandbox, Unattended
from sshgate.stream.tasks import TaskSet, cancel, within

# How long a login waits until the previous sandbox of the same name is gone; usually a second or two.
GONE_SECONDS = 30.0
SWEEP_SECONDS = 5.0
# Attempts to make or join a sandbox that others change at the same moment, and seconds between them.
TRIES = 6
TRY_AGAIN = 0.1
# Seconds until the name is written on a pod that was warm: its user's program goes first.
NAME_AFTER = 0.02
# Seconds between attempts to delete a pod that the kubelet changes at the same moment.
UNUSED_PAUSES = (0.05, 0.3, 1.0, 3.0)


class KubernetesNamed:
    """The ``NamedSandboxes`` of one gateway."""

    outlast = True

    def __init__(
        self, api: ApiServer, registry: Registry, owner: Owner, homes: KubernetesHomes, allocator: PodAllocator
    ) -> None:
        self._api = api
        self._registry = registry
        self._owner = owner
        self._homes = homes
        self._allocator = allocator
        self._names = Names(api, registry)
        self._here: dict[str, Here] = {}
        self._returning = Returning(attach_idle)
        # By `_key_of` or `schema.named_pod`: what is done with one name is done one after the other.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        # The uids of pods that are known to have their name's Lease, beside those that were warm.
        self._leased: set[str] = set()
        # The pods that have their name here already and on the pod not yet, by the session that they are claimed for.
        self._fresh: dict[str, Record] = {}
        self._detaching = TaskSet()
        self._sweeps = TaskSet()

    def start(self) -> None:
        """Start ``sweep`` every ``SWEEP_SECONDS``."""
        self._sweeps.start(self._sweeping())

    async def close(self, seconds: float) -> None:
        """Detach from all of them, within ``seconds``; the sandboxes keep running without this gateway."""
        await self._sweeps.cancel()
        for name, here in self._here.items():
            here.count = 0
            here.sandbox.abandon()
            self._detach_soon(name, here)
        await within(seconds, self._detaching.join())
        await self._detaching.cancel()
        # Last: what was detaching already when this began may have kept one more.
        await self._returning.close()

    def observe(self, pod: Pod, gone: bool) -> None:
        """Take note of a change of a pod, or of its end (``gone``), from the watch."""
        if gone:
            self._leased.discard(pod.metadata.uid)
        if (here := self._here.get(pod.metadata.name)) is not None:
            here.sandbox.observe(pod, gone)
        self._returning.observe(pod, gone)

    # --- NamedSandboxes ---

    def profile(self, user: str, name: str) -> str | None:
        record = self._cached(user, name)
        return record.profile if record is not None and record.user_hash == labels.user_hash(user) else None

    @failures.raised_as(StartFailed)
    async def join(self, order: Order, notice: Notice, admit: Admit) -> Attachment:
        assert order.name is not None
        async with self._alone(labels.named_pod(order.user, order.name)):
            with contextlib.suppress(failures.NotFound):
                return await self._joined(order.name, order, notice, admit)
            return await self._joined(order.name, order, notice, admit)  # a new one: the first has just ended

    def names(self, user: str) -> Collection[str]:
        found = [*self._registry.cache.of_user(user, self._registry.now), *self._fresh.values()]
        mine = [one for one in found if one.counts and one.user_hash == labels.user_hash(user)]
        return {one.sandbox for one in mine if one.sandbox is not None}

    def unattended(self) -> Sequence[Unattended]:
        registry = self._registry
        found = registry.cache.claimed(registry.now) if registry.cache.synced and registry.leads else []
        return [
            (one.user, one.sandbox, one.profile)
            for one in found
            if one.sandbox and one.user and one.counts and one.stage is Stage.READY and not one.attached
        ]

    @failures.raised_as(Unavailable)
    async def find(self, order: Order) -> Sandbox | None:
        assert order.name is not None
        record = await self._look(order.user, order.name)
        if record is None or not record.counts or record.user_hash != labels.user_hash(order.user):
            return None
        here = self._here.get(record.name)
        if here is not None and here.sandbox.uid == record.uid and here.sandbox.usable:
            return here.sandbox
        with contextlib.suppress(failures.NotFound):
            return await self._allocator.enter(record, order, lambda text: None, self._discard, new=False)
        return None  # it has ended since

    @failures.raised_as(Unavailable)
    async def list(self, user: str | None) -> list[Listed]:
        cache, now = self._registry.cache, self._registry.now
        fresh = {record.uid: record for record in self._fresh.values()}
        found = cache.of_user(user, now) if user is not None else cache.claimed(now)
        return await list_sandboxes(self._api, [fresh.get(one.uid, one) for one in found], self._homes, user, now)

    @failures.raised_as(Unavailable)
    async def end(self, user: str, name: str) -> str | None:
        record = await self._look(user, name)
        if record is None or not record.counts or record.user_hash != labels.user_hash(user):
            return None
        self._registry.cache.expectations.delete(record.uid, self._registry.now.mono)
        if not await self._registry.delete(Delete(record, "ended by its user", untouched=False)):
            raise failures.unreachable()
        return record.name

    # --- joining ---

    async def _joined(self, name: str, order: Order, notice: Notice, admit: Admit) -> Attachment:
        """As ``join``, and ``NotFound`` if the sandbox ends at this moment."""
        record, made = await self._one(name, order, notice, admit)
        try:
            return await self._attach(record, order, notice, made)
        except BaseException:
            if made:
                self._detaching.start(self._give_back(record))
            raise

    async def _one(self, name: str, order: Order, notice: Notice, admit: Admit) -> tuple[Record, bool]:
        """The pod of this name, with this gateway attached to it, and whether this call made or claimed it."""
        registry, user = self._registry, order.user
        record = self._cached(user, name)
        until = registry.now.mono + GONE_SECONDS
        unknown = tries = 0
        again = False
        while True:
            step = join(record, user, name, order.profile.name if order.chosen else None)
            if not isinstance(step, Wait):
                if tries == TRIES:
                    raise StartFailed(f"the cluster does not let you into your sandbox {name!r}; ask your operator.")
                if tries > 1:  # the first one may have been decided on an old state
                    await asyncio.sleep(TRY_AGAIN)
                tries += 1
            if isinstance(step, Make):
                admit()()  # who only lists refuses; logins are counted by the registry
                warm = bool(order.profile.warm) and order.profile.home is None and registry.membership.all_name_by_lease
                record = registry.cache.named(labels.named_pod(user, name))
                if record is not None and not warm:
                    continue
                record, made = await self._make(name, order, notice, warm, again)
                again = True
                if record is not None and made:
                    return record, True
                record = record or await self._look(user, name)
            elif isinstance(step, Join):
                if not self._is_leased(step.record, user, name):
                    # It was made by an older gateway, or by one that has not taken its name yet.
                    record = await self._holder(user, name, step.record)
                    continue
                here = self._here.get(step.record.name)
                if here is not None and here.count and here.sandbox.usable and here.sandbox.uid == step.record.uid:
                    return step.record, False
                answer = await registry.patch(step.record, attach_patch(step.record, registry.instance, registry.now))
                if isinstance(answer, Record):
                    return answer, False
                unknown += answer is Answer.UNKNOWN
                if unknown >= MOST_UNKNOWN:
                    raise failures.silent(self._api.timeout)
                record = step.record if answer is Answer.UNKNOWN else await self._look(user, name)
            else:
                if registry.now.mono > until:
                    raise StartFailed(f"your last sandbox {name!r} is still ending; try again in a minute.")
                await self._forget(step, notice)
                record = self._cached(user, name) or registry.cache.named(step.record.name)

    async def _make(
        self, name: str, order: Order, notice: Notice, warm: bool, again: bool
    ) -> tuple[Record | None, bool]:
        """Claim or create a pod and take the name for it. ``again`` as for ``Registry.admit``.

        Returns the pod that has the name, and whether that is ours and this gateway is attached to it. ``None``, or a
        pod that is ending: another pod is in the way.
        """
        registry, user = self._registry, order.user
        last = registry.cache.named(labels.named_pod(user, name))
        registry.admit(user, order.session, again)
        home: VolumeClaim | None = None
        requested = False
        try:
            if warm:
                sandbox = await self._allocator.claim(order, notice)
                if sandbox is not None:
                    return await self._take_name(name, order, sandbox)
            if last is not None:
                return last, False
            home, requested = self._homes.planned(order), True
            home = await self._homes.prepare(order, home)
            stamps = named_annotations(claim_of(order, self._owner), registry.now)
            manifest = podspec.claimed_pod(order, self._owner, "", stamps)
            record = record_of(await self._allocator.make(lambda: self._api.create_pod(manifest)))
        except failures.Conflict:
            return None, False
        except BaseException as error:
            unsure = requested and isinstance(error, (Unavailable, asyncio.CancelledError))
            if unsure or home is not None:
                self._detaching.start(self._undo(home, labels.named_pod(user, name), order.session, unsure))
            raise
        finally:
            # From now on the limits count the pod itself instead of the reservation.
            if order.session not in self._fresh:
                registry.end(order.session)
        registry.update(record)
        holder: Record | None = None
        try:
            holder = await self._holder(user, name, record)
        finally:
            if holder is None or holder.uid != record.uid:
                self._detaching.start(self._give_back(record))
        return holder, holder is not None and holder.uid == record.uid

    async def _take_name(self, name: str, order: Order, sandbox: KubernetesSandbox) -> tuple[Record | None, bool]:
        """Take the name for a claimed pod; see ``_make``. Cancelling waits for the answer, and then gives it back."""
        naming = asyncio.create_task(self._named(name, order, sandbox))
        try:
            return await asyncio.shield(naming)
        except asyncio.CancelledError:
            await asyncio.wait((naming,), timeout=self._api.timeout)
            await cancel(naming)
            here = self._here.get(sandbox.id)
            if here is not None and here.sandbox is sandbox:
                self._detach_soon(sandbox.id, here)
            raise

    async def _named(self, name: str, order: Order, sandbox: KubernetesSandbox) -> tuple[Record | None, bool]:
        record = self._registry.cache.pod(sandbox.uid)
        try:
            holder = None if record is None else await self._holder(order.user, name, record)
        except BaseException:
            # It may have the name, and another gateway may give it to its user: `reap_plan.orphans` looks first.
            self._allocator.hand_over(sandbox, self._discard)
            sandbox.abandon()
            raise
        if holder is None or holder.uid != sandbox.uid:
            await sandbox.delete()
            return holder, False
        self._allocator.hand_over(sandbox, self._discard)
        self._fresh[order.session] = holder
        naming = self._detaching.start(self._write_name(holder, order.session))
        self._here[sandbox.id] = Here(sandbox, True, naming)
        return holder, True

    async def _write_name(self, record: Record, session: str) -> None:
        """Write its name on a pod that has it, while its user's program starts; until it is written or the pod is gone.

        A refusal may be an admission rule's, and pass: the pod must not go under a running program for that.
        """
        registry, tries = self._registry, 0
        answer: Record | Answer = record
        try:
            await asyncio.sleep(NAME_AFTER)
            while isinstance(answer, Answer) or (answer.counts and not answer.attached):
                answer = await registry.patch(record, attach_patch(record, registry.instance, registry.now))
                if answer is Answer.REFUSED:
                    answer = await registry.look(record)
                if answer is Answer.MISSING or (isinstance(answer, Record) and answer.uid != record.uid):
                    return
                if isinstance(answer, Answer) or not answer.attached:
                    await asyncio.sleep(LOOK_AFTER[min(tries, len(LOOK_AFTER) - 1)])
                    tries += 1
        finally:
            if self._fresh.get(session) is record:  # not if its pod has ended, and the session has another
                del self._fresh[session]
                registry.end(session)

    def _cached(self, user: str, name: str) -> Record | None:
        """The pod of this name that can be joined, as far as the watch has shown."""
        cache, cold = self._registry.cache, labels.named_pod(user, name)
        for record in self._fresh.values():
            if (record.user_hash, record.sandbox) == (labels.user_hash(user), labels.label_value(name)):
                return record
        living = [one for one in cache.sandboxes(user, name) if one.counts and not cache.expectations.deleting(one.uid)]
        # One that was warm bears the name only if it has the Lease.
        return next((one for one in living if one.name != cold), living[0] if living else None)

    def _is_leased(self, record: Record, user: str, name: str) -> bool:
        return record.uid in self._leased or record.name != labels.named_pod(user, name)

    async def _holder(self, user: str, name: str, contender: Record | None) -> Record | None:
        """As ``Names.holder``."""
        record = await self._names.holder(user, name, contender)
        if record is None:
            return None
        self._leased.add(record.uid)
        return bearing(record, user, name)

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
            kept = await self._returning.take(record.name, record.uid, order.profile)
            if kept is None:
                kept = await self._allocator.enter(record, order, notice, self._discard, new=made)
            here = self._here[record.name] = Here(kept, made)
        here.count += 1
        expires = record.expires_at
        limit = podspec.lifetime(order.profile)
        left = limit if expires is None else max(0.0, expires - self._registry.now.wall)
        return Attachment(here.sandbox, made, left, partial(self._left, record.name, here))

    def _left(self, name: str, here: Here, returns: bool) -> None:
        """A channel has left; the last one starts the detaching."""
        here.count -= 1
        here.returns |= returns
        if not here.count:
            self._detach_soon(name, here)

    def _detach_soon(self, name: str, here: Here | None) -> None:
        self._detaching.start(self._detach(name, here))

    def _alone(self, key: str) -> asyncio.Lock:
        return self._locks.setdefault(key, asyncio.Lock())

    async def _undo(self, home: VolumeClaim | None, pod: str, session: str, unsure: bool) -> None:
        """Delete the home that was created for this pod, and the pod if it was made after all and nobody has joined it.

        ``unsure``: whether the creation of either has no answer and may still be carried out.
        """
        pauses = (0.0, *(UNUSED_PAUSES if unsure else ()))
        given_back = False
        for number, pause in enumerate(pauses, 1):
            await asyncio.sleep(pause)
            # Alone: the next login may have found the home already, and must not lose it while its pod is made.
            async with self._alone(pod):
                with contextlib.suppress(GateError):
                    record = await self._read(pod)
                    if record is not None and (record.session != labels.label_value(session) or record.detached_at):
                        return  # it is another login's, or somebody was in it already
                    if record is not None and not given_back:
                        given_back = True
                        self._detaching.start(self._give_back(record))
                    if home is not None and number == len(pauses) and (record is None or record.deleting):
                        await self._homes.undo(home)

    async def _give_back(self, record: Record) -> None:
        """Delete a pod that was just made and did not get its name, unless somebody has joined it after all."""
        async with self._alone(record.name):
            for pause in UNUSED_PAUSES:
                if record.name in self._here or await self._delete_unused(record, "given up during the start"):
                    return
                await asyncio.sleep(pause)

    async def _detach(self, name: str, here: Here | None) -> None:
        registry = self._registry
        if here is not None and here.naming is not None:
            await asyncio.wait((here.naming,))
        known = registry.cache.named(name)
        async with self._alone(name if known is None else _key_of(known)):
            if (now_here := self._here.get(name)) is not None and (now_here.count or now_here is not here):
                return  # a channel has joined meanwhile
            self._here.pop(name, None)
            if here is not None:
                await here.sandbox.forget()
            record = registry.cache.named(name)
            if record is None or (here is not None and record.uid != here.sandbox.uid):
                return
            answer = await registry.patch(record, detach_patch(record, registry.instance, registry.now))
            if here is not None and (here.returns or here.sandbox.kept) and here.sandbox.usable:
                self._returning.keep(here.sandbox)
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
            if _key_of(record) not in self._locks and (here is None or not here.count):
                self._detach_soon(record.name, here)

    async def _look(self, user: str, name: str) -> Record | None:
        """The pod of this name, read from the API server; ``None`` if there is none. Raises ``Unavailable``."""
        cold, known = labels.named_pod(user, name), self._cached(user, name)
        if known is not None and self._is_leased(known, user, name):
            found = await self._read(known.name)
            if found is not None and found.uid == known.uid and found.counts:
                return bearing(found, user, name)
        return await self._holder(user, name, None) or await self._read(cold)

    async def _read(self, pod: str) -> Record | None:
        """Read a pod from the API server; ``None`` if there is none. Raises ``Unavailable``."""
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
        return asyncio.shield(self._detaching.start(self._delete_failed(sandbox)))

    async def _delete_failed(self, sandbox: KubernetesSandbox) -> None:
        known = self._registry.cache.named(sandbox.id)
        async with self._alone(sandbox.id if known is None else _key_of(known)):
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


def _key_of(record: Record) -> str:
    """The name of its pod if it had started cold."""
    return record.name if record.sandbox is None else labels.pod_of(record.user_hash or "", record.sandbox)
