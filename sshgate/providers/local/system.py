"""System calls that reach into a sandbox from outside: its namespaces and its terminals."""

from __future__ import annotations

import fcntl
import itertools
import os
import struct

# linux/nsfs.h: the user namespace that owns a namespace.
NS_GET_USERNS = 0xB701
# asm-generic/ioctls.h: open the slave of a pty master in any mount namespace; since Linux 4.13.
TIOCGPTPEER = 0x5441
TIOCSPTLCK = 0x40045431


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
