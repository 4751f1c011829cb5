"""Holding one thread of a process still, from outside, as if it had too much to do; its other threads go on."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17
# In waitpid: stops of threads too.
WALL = 0x40000000


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """The main thread of this child of ours does nothing while the body runs, all of it in one thread of ours.

    It is held wherever it is, so perhaps with a lock that the others need: look whether they go on.
    """
    _ptrace(SEIZE, pid)
    _ptrace(INTERRUPT, pid)
    os.waitpid(pid, WALL)
    try:
        yield
    finally:
        _ptrace(DETACH, pid)


def _ptrace(request: int, pid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (ctypes.c_long(request), ctypes.c_long(pid), ctypes.c_void_p(0), ctypes.c_void_p(0))
    if libc.ptrace(*arguments) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
