"""What the kernel offers to reach into a sandbox from outside: its namespaces and its terminals."""

from __future__ import annotations

import fcntl
import itertools
import os
import struct

# linux/nsfs.h: the user namespace that owns a namespace.
NS_GET_USERNS = 0xB701
# asm-generic/ioctls.h: the slave of a master, whatever the mount namespace; Linux 4.13.
TIOCGPTPEER = 0x5441
TIOCSPTLCK = 0x40045431


def handles(outer: int, inner: int) -> tuple[int, int, int]:
    """Descriptors of two processes, and of what ``open_owner`` opens of the second; or none: raises ``OSError``."""
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
    """A descriptor of the user namespace that owns the other namespaces of process ``pid``."""
    ipc = os.open(f"/proc/{pid}/ns/ipc", os.O_RDONLY)
    try:
        owner = fcntl.ioctl(ipc, NS_GET_USERNS)
    finally:
        os.close(ipc)
    try:
        # A number below the one it is spawned with would be taken twice.
        return fcntl.fcntl(owner, fcntl.F_DUPFD_CLOEXEC, 16)
    finally:
        os.close(owner)


def open_terminal(pid: int) -> tuple[int, int]:
    """Master and slave of a new pseudo-terminal of the sandbox's own /dev/pts, so that `tty` and tmux know it."""
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
    """Give a terminal to the sandbox's user; as root its opener would keep it."""
    os.fchown(slave, uid, -1)
    # tty group and mode as a login sets them: nobody else writes to it.
    os.fchmod(slave, 0o620)


def pipes(count: int) -> list[tuple[int, int]]:
    """So many pipes, or none: raises ``OSError``."""
    made: list[tuple[int, int]] = []
    try:
        for _ in range(count):
            made.append(os.pipe())
    except OSError:
        for end in itertools.chain(*made):
            os.close(end)
        raise
    return made
