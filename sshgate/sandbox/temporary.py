"""Temporary directories that are removed although their gateway was killed: by the next one that makes one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path


def make_directory(prefix: str) -> tuple[Path, int]:
    """Create a temporary directory. Blocks.

    Returns it with a descriptor that holds a lock on it. Also removes those of this prefix that are not locked, of
    gateways that were killed. A process id would not show that: a gateway in a container may share this machine's
    /tmp.
    """
    for old in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            lock = os.open(old, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(lock).st_uid == os.geteuid():
                    shutil.rmtree(old)
            finally:
                os.close(lock)
    while True:
        made = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-"))
        with contextlib.suppress(FileNotFoundError):  # another gateway removed it before it was locked
            lock = os.open(made, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.fstat(lock).st_nlink:
                return made, lock
            os.close(lock)
