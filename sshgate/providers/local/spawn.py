"""Starts programs on this machine, with default signal handling and without the gateway's keyring."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
from collections.abc import Mapping, Sequence
from typing import Any

# Programs inherit ignored and blocked signals. Python ignores PIPE, so `yes | head` would print an error instead of
# ending; under nohup the gateway ignores HUP, and started in the background by a script, INT and QUIT.
_SIGNALS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}

# The system call number of keyctl(2), which libc does not wrap, by machine; from asm/unistd.h.
_KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219}
_JOIN_SESSION_KEYRING = 1
_REVOKE = 3
_SESSION_KEYRING = -3


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
