"""One bubblewrap tree: a first process that only waits, and programs that enter it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence

from sshgate.errors import Unavailable
from sshgate.sandbox.launch import send_signal
from sshgate.sandbox.local import bubblewrap
from sshgate.sandbox.local.namespaces import open_owner, open_terminal, restore_owner
from sshgate.sandbox.local.process import LocalProcess, set_size
from sshgate.sandbox.provider import Order
from sshgate.streams import STDERR, STDOUT, Process
from sshgate.terminal import Terminal

# How long killed processes may take to be reaped.
REAP_SECONDS = 5.0
SIGNALS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


class LocalSandbox:
    """The tree whose outermost process is ``outer`` and whose first process inside is ``inner``."""

    warm = False
    hostname = bubblewrap.HOST_NAME

    def __init__(
        self, name: str, order: Order, uid: int | None, outer: int, inner: int, gone: Callable[[LocalSandbox], None]
    ) -> None:
        self.id = name
        self.order = order
        self.made = time.monotonic()
        self._profile = order.profile
        self._uid = uid
        self._outer = outer
        self._inner = inner
        self._tell_gone = gone
        self._owner = open_owner(inner)
        self._processes: set[LocalProcess] = set()
        self._deleted = False
        self._reaped = asyncio.Event()
        self._pidfd = os.pidfd_open(outer)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    def __repr__(self) -> str:
        return f"<LocalSandbox {self.id} {len(self._processes)} processes{' deleted' * self._deleted}>"

    @property
    def alive(self) -> bool:
        """Whether programs can be started in it."""
        return not self._deleted

    async def addresses(self) -> tuple[str, ...]:
        return ()  # its network has loopback alone

    def parked(self, terminal: bool) -> Process | None:
        return None  # entering a tree takes a few milliseconds

    async def start(self, argv: Sequence[str], terminal: Terminal | None) -> Process:
        if self._deleted:
            raise Unavailable("the sandbox has ended.")
        words = [
            *bubblewrap.confine(self._profile, self._uid),
            *bubblewrap.enter(self._inner, terminal is not None),
            *argv,
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
            ours[0], theirs[0] = theirs[0], ours[0]  # of the first pipe they read and we write
            child = self._spawn(words, theirs)
        except OSError as error:
            _close(ours)
            raise Unavailable(f"no program can be started on this machine: {error.strerror}.") from error
        finally:
            _close(theirs)
        return LocalProcess(
            child, ours[0], {ours[1]: STDOUT, ours[2]: STDERR}, False, self._signal, self._processes.discard
        )

    def _on_terminal(self, words: list[str], terminal: Terminal) -> LocalProcess:
        master, slave = -1, -1
        try:
            master, slave = open_terminal(self._inner)
            if self._uid is not None:
                restore_owner(slave, self._uid)
            set_size(master, terminal.size)
            child = self._spawn(words, [slave, slave, slave])
        except OSError as error:
            _close([end for end in (master,) if end >= 0])
            raise Unavailable(f"no terminal can be opened in the sandbox: {error.strerror}.") from error
        finally:
            _close([end for end in (slave,) if end >= 0])
        return LocalProcess(child, master, {master: STDOUT}, True, self._signal, self._processes.discard)

    def _spawn(self, words: list[str], descriptors: Sequence[int]) -> int:
        actions = [(os.POSIX_SPAWN_DUP2, end, number) for number, end in enumerate(descriptors)]
        actions.append((os.POSIX_SPAWN_DUP2, self._owner, bubblewrap.OWNER))
        environment = bubblewrap.environment(self._profile.shell)
        # As under sshd. Python ignores PIPE and XFSZ, a gateway under nohup HUP, and one that a script started in the
        # background INT and QUIT.
        return os.posix_spawnp(
            words[0], words, environment, file_actions=actions, setsid=True, setsigmask=(), setsigdef=SIGNALS
        )

    async def _signal(self, pid: int, name: str, foreground: bool) -> None:
        await send_signal(self, pid, name, foreground)

    async def delete(self) -> None:
        if not self._deleted:
            self._deleted = True
            try:
                for process in list(self._processes):
                    await process.close("the sandbox has ended.")
            finally:
                self._kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REAP_SECONDS):
                await self._reaped.wait()

    def _kill(self) -> None:
        if not self._reaped.is_set():
            # With the outermost process dies the first inside, and with that every other.
            for pid in (self._inner, self._outer):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.waitpid(self._outer, 0)
        _close([self._pidfd, self._owner])
        self._deleted = True
        self._reaped.set()
        self._tell_gone(self)


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
