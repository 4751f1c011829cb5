"""How every program on this machine begins: signals at their defaults, and no keyring of the gateway's."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
from collections.abc import Mapping, Sequence
from typing import Any

# What this process ignores or blocks, its programs would too. Python ignores PIPE, and `yes | head` would complain
# instead of ending; a gateway under nohup ignores HUP, one that a script put in the background INT and QUIT.
_SIGNALS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}

# keyctl(2) has no function in libc; its number by machine, from asm/unistd.h.
_KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219}
_JOIN_SESSION_KEYRING = 1
_REVOKE = 3
_SESSION_KEYRING = -3


def spawn(words: list[str], environment: Mapping[str, str], actions: Sequence[tuple[Any, ...]]) -> int:
    """Start a program in a session of its own; returns its process id. Raises ``OSError``.

    Takes a millisecond; what asyncio has for this takes a thread for each child.
    """
    return os.posix_spawnp(
        words[0], words, environment, file_actions=actions, setsid=True, setsigmask=(), setsigdef=_SIGNALS
    )


def leave_keyring() -> None:
    """Let go of the session keyring of whoever started this process: it may hold a Kerberos ticket or a disk's key.

    Programs get the keyring of this process. It is a new one, and revoked: they are of several sandboxes, which
    must not leave each other anything there. A program that wants a keyring can make one.
    """
    number = _KEYCTL.get(platform.machine())
    if number is None:
        return
    # A kernel without keys refuses, and there is nothing to leave. The arguments are long for syscall(2).
    call = ctypes.CDLL(None).syscall
    long = ctypes.c_long
    if call(long(number), long(_JOIN_SESSION_KEYRING), long(0)) >= 0:
        call(long(number), long(_REVOKE), long(_SESSION_KEYRING))
