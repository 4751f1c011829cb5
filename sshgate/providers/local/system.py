"""System calls: starting programs on this machine, and reaching into a sandbox from outside."""

from __future__ import annotations

import ctypes
import fcntl
import itertools
import os
import platform
import signal
import struct
from collections.abc import Mapping, Sequence
from typing import Any

# linux/nsfs.h: the user namespace that owns a namespace.
NS_GET_USERNS = 0xB701
# asm-generic/ioctls.h: open the slave of a pty master in any mount namespace; since Linux 4.13.
TIOCGPTPEER = 0x5441
TIOCSPTLCK = 0x40045431

# Programs inherit ignored and blocked signals. Python ignores PIPE, so `yes | head` would print an error instead of
# ending; under nohup the gateway ignores HUP, and started in the background by a script, INT and QUIT.
_SIGNALS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}

# The system call number of keyctl(2), which libc does not wrap, by machine; from asm/unistd.h.
_KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219}
_JOIN_SESSION_KEYRING = 1
_REVOKE = 3
_SESSION_KEYRING = -3


# --- programs ---


def spawn(words: list[str], environment: Mapping[str, str], actions: Sequence[tuple[Any, ...]]) -> int:
    """Start a program in a new session; returns its process id, which the caller must reap. Raises ``OSError``.

    Blocks for a millisecond. asyncio's subprocesses are not used because they may need a thread per child.

    Args:
        words: The command line; the program is searched in the gateway's ``PATH``.
        environment: Its whole environment.
        actions: File actions of ``posix_spawn``.
    """
    return os.posix_spawnp(
        words[0], words, environment, file_actions=actions, setsid=True, setsigmask=(), setsigdef=_SIGNALS
    )


def leave_keyring() -> None:
    """Replace the inherited session keyring, which may hold a Kerberos ticket or a disk key.

    Programs inherit this process's keyring. The new one is revoked, because sandboxes must not share one. A program
    that needs a keyring can create its own. Does nothing on an unknown machine or a kernel without keyrings.
    """
    number = _KEYCTL.get(platform.machine())
    if number is None:
        return
    # A kernel without keyrings returns an error; then there is none to leave. syscall(2) takes long arguments.
    call = ctypes.CDLL(None).syscall
    long = ctypes.c_long
    if call(long(number), long(_JOIN_SESSION_KEYRING), long(0)) >= 0:
        call(long(number), long(_REVOKE), long(_SESSION_KEYRING))


# --- namespaces and terminals ---


def handles(outer: int, inner: int) -> tuple[int, int, int]:
    """The pidfds of both processes, and the result of ``open_owner(inner)``. Raises ``OSError``; then none is open."""
    made: list[int] = []
    try:
        for opened, pid in ((os.pidfd_open, outer), (os.pidfd_open, inner), (open_owner, inner)):
            made.append(opened(pid))
    except OSError:
        for descriptor in made:
            os.close(descriptor)
        raise
    first, second, third = made
    return first, second, third


def open_owner(pid: int) -> int:
    """A descriptor of the user namespace that owns the other namespaces of process ``pid``. Raises ``OSError``."""
    ipc = os.open(f"/proc/{pid}/ns/ipc", os.O_RDONLY)
    try:
        owner = fcntl.ioctl(ipc, NS_GET_USERNS)
    finally:
        os.close(ipc)
    try:
        # Low numbers are assigned in spawned programs (0-2 and `bubblewrap.OWNER`) and must not collide with it.
        return fcntl.fcntl(owner, fcntl.F_DUPFD_CLOEXEC, 16)
    finally:
        os.close(owner)


def open_terminal(pid: int) -> tuple[int, int]:
    """Master and slave of a new pseudo-terminal in the sandbox's own /dev/pts, where `tty` and tmux find it.

    ``pid`` is a process in the sandbox. Raises ``OSError``; then none is open.
    """
    master = os.open(f"/proc/{pid}/root/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
    try:
        fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
        slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)
    except BaseException:
        os.close(master)
        raise
    os.set_inheritable(slave, False)
    return master, slave


def restore_owner(slave: int, uid: int) -> None:
    """Give a terminal to the sandbox's user. Opened by root, it would belong to root."""
    os.fchown(slave, uid, -1)
    # The mode that a login sets: only the tty group may write besides its owner.
    os.fchmod(slave, 0o620)


def pipes(count: int) -> list[tuple[int, int]]:
    """Open ``count`` pipes. Raises ``OSError``; then none is open."""
    made: list[tuple[int, int]] = []
    try:
        for _ in range(count):
            made.append(os.pipe())
    except OSError:
        for end in itertools.chain(*made):
            os.close(end)
        raise
    return made
