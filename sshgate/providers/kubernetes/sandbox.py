"""A pod as a ``Sandbox``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from sshgate.config.model import Profile
from sshgate.errors import GateError, StartFailed
from sshgate.providers.kubernetes.api.client import ApiServer
from sshgate.providers.kubernetes.api.errors import NotFound, raised_as
from sshgate.providers.kubernetes.api.objects import Pod
from sshgate.providers.kubernetes.api.websocket import RemoteSocket
from sshgate.providers.kubernetes.exec import diagnosis, remotecommand
from sshgate.providers.kubernetes.exec.cold_start import ColdStart, StartupFailed, events
from sshgate.providers.kubernetes.exec.process import ExecProcess
from sshgate.providers.kubernetes.exec.queue import StartSlot, StartSlots
from sshgate.providers.kubernetes.exec.remotecommand import CONTAINER
from sshgate.providers.kubernetes.fence import PodFence
from sshgate.sandbox.interfaces import Kind, Notice, Order
from sshgate.sandbox.probe import Probe, Verdict
from sshgate.sandbox.side_execs import ExecLimits, SideExecs, dismiss
from sshgate.stream.interfaces import Process, Resize
from sshgate.stream.tasks import TaskSet, within
from sshgate.stream.terminal import Terminal

# When a pod has ended, its execs usually end by themselves with the true status; wait this long before `Lost`.
LAST_STATUS_SECONDS = 1.0
# When a program's connection breaks, wait this long for the watch to show that the pod has ended.
END_REASON_SECONDS = 0.3
# When the whole container was killed, the kubelet reports the reason only after all of it has stopped: this may take
# seconds on a busy node.
KILLED_SECONDS = 10.0
# How long to wait for the kubelet to report a running pod's addresses.
ADDRESS_SECONDS = 5.0


Discard = Callable[["KubernetesSandbox"], asyncio.Future[None]]
"""Deletes the sandbox's pod, or not; the future is done after the first attempt."""


class KubernetesSandbox:
    """One pod, and the programs that this gateway runs in it.

    The owner passes changes of the pod to ``observe``. ``delete`` ends the programs and calls ``discard``, which
    deletes the pod. ``user`` is whose share of the exec ``limits`` is used; ``notice`` gets progress texts;
    without a ``fence``, programs do not wait for the network policy.
    """

    def __init__(
        self,
        api: ApiServer,
        pod: Pod,
        profile: Profile,
        discard: Discard,
        limits: ExecLimits,
        user: str,
        notice: Notice = lambda text: None,
        fence: PodFence | None = None,
    ) -> None:
        self.id = pod.metadata.name
        self.uid = pod.metadata.uid
        self.profile = profile
        self._turns = StartSlots(limits)
        self.aside = SideExecs(self.start, limits, user, self._turns.alone)
        self.phase = diagnosis.classify(pod, profile.image, profile.limits.max_lifetime)
        self._pod = pod
        self._api = api
        self._discard = discard
        self._notice = notice
        self._fence = fence
        self.warm = False
        self.used = False
        """Whether this gateway has started a program in it for its user."""
        self._parked: dict[Kind, Process] = {}
        self._undoing = TaskSet()
        self._crowded = False
        self._entered = False
        self._entering = asyncio.Lock()
        self._change: asyncio.Future[None] | None = None
        self._processes: set[ExecProcess] = set()
        self._deleted = False
        self._losing: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<KubernetesSandbox {self.id} {self.phase.phase}, {len(self._processes)} processes>"

    @property
    def hostname(self) -> str:
        return "" if self._pod.spec.host_network else self._pod.spec.hostname or self.id

    @property
    def usable(self) -> bool:
        return not self._deleted and not self.phase.over

    async def exists(self) -> bool:
        # Nobody observes a named sandbox here once its channels have left, and another pod may have its name by then.
        try:
            pod = await self._api.get_pod(self.id)
        except NotFound:
            return False
        return self.usable and pod.metadata.uid == self.uid and pod.metadata.deletion_timestamp is None

    def adopt(self, order: Order, notice: Notice) -> None:
        """This warm pod has been claimed: use the order's user, and its profile, whose limits may have changed."""
        self.warm = True
        self.profile = order.profile
        self.aside.user = order.user
        self._notice = notice
        self.used = False

    def unattend(self) -> None:
        """Its client has left: keep nothing of it, such as its connection, while the sandbox is kept."""
        self._notice = lambda text: None

    def hand_over(self, discard: Discard) -> None:
        """Another owner deletes its pod from now on."""
        self._discard = discard

    def leave(self, kind: Kind, process: Process) -> None:
        self._parked[kind] = process

    def parked(self, kind: Kind) -> Process | None:
        process = self._parked.pop(kind, None)
        if process not in self._processes:
            return None
        self.used = True
        return process

    @property
    def kept(self) -> Process | None:
        """The exec that waits in it for its user to come back, if it still runs."""
        process = self._parked.get("kept")
        return process if process in self._processes else None

    async def forget(self) -> None:
        await self._dismiss(*(kind for kind in self._parked if kind != "kept"))

    async def let_go(self) -> None:
        """As ``forget``, and end also the exec that waits for its user."""
        await self._dismiss(*self._parked)

    async def _dismiss(self, *kinds: Kind) -> None:
        waiting = [self._parked.pop(kind) for kind in kinds]
        await asyncio.gather(*(dismiss(process) for process in waiting))

    @property
    def fenced(self) -> bool:
        """Whether a launcher in it has found that the network policy is in force."""
        return self._fence is not None and self._fence.stands

    @property
    def _looking(self) -> bool:
        """Whether a launcher that starts now becomes a program only once it has been judged."""
        return self._fence is not None and self._fence.looking

    def probe(self, parked: bool) -> Probe | None:
        # No policy applies to the node's own network.
        return None if self._fence is None or self._pod.spec.host_network else self._fence.probe(parked)

    async def judge(self, verdict: Verdict) -> None:
        if self._fence is not None:
            await self._fence.judge(verdict)
        self.used = True

    @raised_as(StartFailed)
    async def start(self, argv: Sequence[str], terminal: Terminal | None) -> Process:
        if self._deleted:
            raise StartFailed("the sandbox has been removed.")
        if not self._entered:
            async with self._entering:
                if not self._entered:
                    process = await self._first(argv, terminal)
                    self._entered = True
                    self.used |= not self._looking
                    return process
        if self.phase.over:
            raise StartFailed(self.phase.reason)
        self.used |= not self._looking
        try:
            return await self._exec(argv, terminal)
        except NotFound as error:
            raise StartFailed("the sandbox has just ended; try again.") from error

    async def addresses(self) -> tuple[str, ...]:
        if self._pod.spec.host_network:
            return ()  # they are the node's
        # The kubelet reports them some time after programs can already be started.
        await within(ADDRESS_SECONDS, self._until(lambda: bool(self._pod.status.pod_ips) or not self.usable))
        return tuple(one.ip for one in self._pod.status.pod_ips)

    async def delete(self) -> None:
        self.abandon()
        await self._discard(self)

    def abandon(self) -> None:
        """Close all programs in it and refuse new ones; the pod is not deleted by this."""
        self._deleted = True
        if self._losing is not None:
            self._losing.cancel()
        for process in tuple(self._processes):
            process.lose("the sandbox has been removed.")

    def observe(self, pod: Pod, gone: bool) -> None:
        """Take note of a change of the pod, or of its end (``gone``). Ends its programs soon after it has ended."""
        if pod.metadata.uid != self.uid or self.phase.over:
            return
        self._pod = pod
        judge = diagnosis.deleted if gone else None
        lifetime = self.profile.limits.max_lifetime
        self.phase = judge(pod, lifetime) if judge else diagnosis.classify(pod, self.profile.image, lifetime)
        if self._change is not None and not self._change.done():
            self._change.set_result(None)
        if self.phase.over and not self._deleted:
            self._losing = asyncio.get_running_loop().call_later(LAST_STATUS_SECONDS, self._lose)

    def crowded_out(self) -> bool:
        """True once, when the pod fits on no node for lack of resources: evicting a warm pod may make room."""
        short = self.phase.phase == "unschedulable" and "Insufficient" in self.phase.reason
        before, self._crowded = self._crowded, self._crowded or short
        return short and not before

    def changed(self) -> asyncio.Future[None]:
        """See ``cold_start.Starting``. Each caller gets a future of its own, so that cancelling it is safe."""
        if self._change is None or self._change.done():
            self._change = asyncio.get_running_loop().create_future()
        return asyncio.shield(self._change)

    async def _first(self, argv: Sequence[str], terminal: Terminal | None) -> ExecProcess:
        attempt = partial(self._exec, argv, terminal)
        # Policies reach a pod after its address is known, which the watch shows with "running". What a launcher finds
        # closed before may be the fence of the last pod that had this address.
        early = not self._looking
        cold_start = ColdStart(
            self, attempt, self.aside.give_up, self.profile.limits, self._api.timeout, self._notice, early
        )
        try:
            async with events(self._api, self.uid, lambda event: cold_start.observe(event, self.profile.image)):
                return await cold_start.run()
        except StartupFailed:
            await self.delete()
            raise

    async def _exec(self, argv: Sequence[str], terminal: Terminal | None) -> ExecProcess:
        query = remotecommand.exec_query(CONTAINER, argv, terminal is not None)
        turn = await self._turns.take(self._pod.spec.node_name, self.aside.user, self.profile.limits.start)
        process = await self._opened(query, terminal is not None, turn)
        self._turns.end_when_begun(turn, process)
        if terminal is not None:
            await process.control(Resize(terminal.size))
        return process

    async def _opened(self, query: str, terminal: bool, turn: StartSlot) -> ExecProcess:
        """Open an exec. Ends the turn if it raises; when cancelled, only once the exec has begun or failed."""
        opening = asyncio.create_task(self._api.websocket(self._api.path("pods", self.id, "exec"), query))
        try:
            socket = await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The node may have started the launcher already. Just closing the connection would leave one with a
            # terminal running (see `dismiss`), so its request is not cancelled.
            if not terminal:
                opening.cancel()
            self._undoing.start(self._undo(opening, terminal, turn))
            raise
        except BaseException:
            turn.end()
            raise
        return self._enlisted(socket, terminal)

    async def _undo(self, opening: asyncio.Task[RemoteSocket], terminal: bool, turn: StartSlot) -> None:
        try:
            process = self._enlisted(await opening, terminal)
        except (GateError, asyncio.CancelledError):
            turn.end()
            return
        except BaseException:
            turn.end()
            raise
        # A client that comes and goes must not start more execs at a time than one that stays.
        self._turns.end_when_begun(turn, process)
        self.aside.give_up(process)

    def _enlisted(self, socket: RemoteSocket, terminal: bool) -> ExecProcess:
        process = ExecProcess(socket, terminal, self)
        if process.outcome is None:  # a refusal may come together with the upgrade
            self._processes.add(process)
        return process

    # --- PodContext, for its processes ---

    def signal(self, pid: int, name: str, foreground: bool) -> None:
        self.aside.signal(pid, name, foreground)

    async def acknowledge_output(self, pid: int) -> None:
        await self.aside.taken(pid)

    async def end_reason(self) -> str | None:
        return await self._end_reason(END_REASON_SECONDS)

    async def kill_reason(self) -> str | None:
        if not self.phase.over and await self.aside.alive():
            return None  # the container still runs: only this program was killed
        return await self._end_reason(KILLED_SECONDS)

    async def process_gone(self, pid: int) -> bool:
        return await self.aside.gone(pid)

    async def _end_reason(self, seconds: float) -> str | None:
        await within(seconds, self._until(lambda: self.phase.over))
        return self.phase.reason if self.phase.over else None

    async def _until(self, so: Callable[[], bool]) -> None:
        while not so():
            await self.changed()

    def ended(self, process: ExecProcess) -> None:
        self._processes.discard(process)

    def _lose(self) -> None:
        for process in tuple(self._processes):
            process.lose(self.phase.reason)
