"""A bubblewrap tree as a ``Sandbox``: a first process that only waits, and programs that enter its namespaces."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from sshgate.errors import Unavailable
from sshgate.providers.local import bubblewrap, cgroup
from sshgate.providers.local.process import LocalProcess, set_size
from sshgate.providers.local.system import open_terminal, restore_owner, spawn
from sshgate.sandbox.interfaces import Kind, Order
from sshgate.sandbox.probe import Verdict
from sshgate.sandbox.side_execs import ExecLimits, SideExecs
from sshgate.stream.interfaces import STDERR, STDOUT, Process
from sshgate.stream.tasks import Event, within
from sshgate.stream.terminal import Terminal

# How long `delete` waits until killed processes have been reaped.
REAP_SECONDS = 5.0


class Tree(NamedTuple):
    """The processes that make a sandbox, and descriptors of them."""

    outer: int
    """The process id of the outermost one, bubblewrap."""
    inner: int
    """The process id of the sandbox's process 1."""
    lifeline: int
    """The descriptor whose closing kills all programs inside."""
    pidfd: int
    """The descriptor of ``outer``."""
    first: int
    """The descriptor of ``inner``."""
    owner: int
    """The descriptor of the user namespace that owns the other namespaces."""


class LocalSandbox:
    """The ``Sandbox`` that a tree of bubblewrap makes."""

    warm = False
    hostname = bubblewrap.HOST_NAME

    def __init__(
        self,
        name: str,
        order: Order,
        uid: int | None,
        group: Path | None,
        tree: Tree,
        limits: ExecLimits,
        gone: Callable[[LocalSandbox], None],
    ) -> None:
        """
        Args:
            name: The sandbox's id.
            order: What it was created for.
            uid: The user id on this machine, if the gateway is root.
            group: The control group that limits its memory, if any; removed with the sandbox.
            tree: Its processes; this object closes the descriptors and reaps ``outer``.
            limits: Limits of the execs on the side.
            gone: Called once ``outer`` was reaped.
        """
        self.id = self.uid = name
        self.order = order
        self.made = time.monotonic()
        self.aside = SideExecs(self.start, limits, order.user)
        self._profile = order.profile
        self._uid = uid
        self._group = group
        self._tree = tree
        self._set_gone = gone
        self._processes: set[LocalProcess] = set()
        self._deleted = False
        self._reaped = False
        self._gone = Event()
        asyncio.get_running_loop().add_reader(self._tree.pidfd, self._reap)

    def __repr__(self) -> str:
        return f"<LocalSandbox {self.id} {len(self._processes)} processes{' deleted' * self._deleted}>"

    @property
    def usable(self) -> bool:
        return not self._deleted

    async def exists(self) -> bool:
        return not self._deleted

    async def addresses(self) -> tuple[str, ...]:
        return ()  # its network has only loopback

    def parked(self, kind: Kind) -> Process | None:
        return None  # entering a tree takes a few milliseconds

    async def forget(self) -> None:
        """Do nothing: no launchers are parked in local sandboxes."""

    def probe(self, parked: bool) -> None:
        """Nothing: no network policy applies to this machine."""

    async def judge(self, verdict: Verdict) -> None:
        """Return at once."""

    async def start(self, argv: Sequence[str], terminal: Terminal | None) -> Process:
        if self._deleted:
            raise Unavailable("the sandbox has ended.")
        words = [
            *bubblewrap.confine(self._profile, self._uid),
            *bubblewrap.enter(self._tree.inner, terminal is not None, argv),
        ]
        process = self._on_pipes(words) if terminal is None else self._on_terminal(words, terminal)
        self._processes.add(process)
        return process

    def _on_pipes(self, words: list[str]) -> LocalProcess:
        ours: list[int] = []
        theirs: list[int] = []
        try:
            for _ in range(3):
                for end, ends in zip(os.pipe(), (ours, theirs), strict=True):
                    ends.append(end)
                if self._uid is not None:
                    os.fchown(theirs[-1], self._uid, self._uid)  # so that the program may open it as /dev/stdin
            ours[0], theirs[0] = theirs[0], ours[0]  # swap the first pipe: it is stdin, which we write
            return self._spawn(words, theirs, ours[0], {ours[1]: STDOUT, ours[2]: STDERR}, False)
        except OSError as error:
            _close(ours)
            raise Unavailable(f"no program can be started on this machine: {error.strerror}.") from error
        finally:
            _close(theirs)

    def _on_terminal(self, words: list[str], terminal: Terminal) -> LocalProcess:
        master, slave = -1, -1
        try:
            master, slave = open_terminal(self._tree.inner)
            if self._uid is not None:
                restore_owner(slave, self._uid)
            set_size(master, terminal.size)
            return self._spawn(words, [slave, slave, slave], master, {master: STDOUT}, True)
        except OSError as error:
            _close([end for end in (master,) if end >= 0])
            raise Unavailable(f"no terminal can be opened in the sandbox: {error.strerror}.") from error
        finally:
            _close([end for end in (slave,) if end >= 0])

    def _spawn(
        self, words: list[str], theirs: Sequence[int], stdin: int, outputs: dict[int, int], terminal: bool
    ) -> LocalProcess:
        """Start a program. Raises ``OSError``; then nothing runs, and the caller still owns all descriptors."""
        actions = [(os.POSIX_SPAWN_DUP2, end, number) for number, end in enumerate(theirs)]
        actions.append((os.POSIX_SPAWN_DUP2, self._tree.owner, bubblewrap.OWNER))
        child = spawn(words, bubblewrap.environment(self._profile.shell), actions)
        try:
            return LocalProcess(child, self._group, stdin, outputs, terminal, self.aside.signal, self._ended)
        except OSError:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise

    async def delete(self) -> None:
        if not self._deleted:
            self._deleted = True
            try:
                for process in list(self._processes):
                    await process.close("the sandbox has ended.")
            finally:
                self._kill(self._tree.first)
        if not await within(REAP_SECONDS, self._gone.wait()):
            self._kill(self._tree.pidfd)

    def _kill(self, pidfd: int) -> None:
        # When process 1 dies, the kernel kills all others; bubblewrap ends after the last of them.
        if not self._reaped:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        self._wake()

    def _wake(self) -> None:
        for process in self._processes:
            process.wake()  # process 1 waits until all are reaped, which a stopped nsenter would not do

    def _reap(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._tree.pidfd)
        os.waitpid(self._tree.outer, 0)
        self._deleted = True
        self._kill(self._tree.first)  # it may not have tied itself to bubblewrap yet
        loop.add_reader(self._tree.first, self._all_dead)  # process 1 may end a little later than bubblewrap

    def _all_dead(self) -> None:
        asyncio.get_running_loop().remove_reader(self._tree.first)
        _close(self._tree[2:])
        self._reaped = True
        self._set_gone(self)
        self._wake()
        self._clear()

    def _ended(self, process: LocalProcess) -> None:
        self._processes.discard(process)
        self._clear()

    def _clear(self) -> None:
        """Once bubblewrap and all programs have ended, remove the control group and finish ``delete``."""
        if self._reaped and not self._processes:
            if self._group is not None:
                cgroup.remove(self._group)
            self._gone.set()


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
