"""A disk that takes more than it has: its errors come when the kernel writes back, as those of NFS and thin volumes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# The test may have a PATH of its own.
_PROGRAMS = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


@contextmanager
def lying_disk(place: Path) -> Iterator[Path]:
    """Mount a file system that takes 60 MB, of which it can write 8. Skips the test without the right to mount."""
    below, disk = place / "below", place / "disk"
    mounted: list[Path] = []

    def mount(*arguments: str | Path) -> None:
        subprocess.run(["mount", *arguments], check=True, capture_output=True, env=_PROGRAMS)
        mounted.append(Path(arguments[-1]))

    try:
        for directory in (below, disk):
            directory.mkdir()
        try:
            mount("-t", "tmpfs", "-o", "size=8M", "tmpfs", below)
            with (below / "image").open("wb") as image:
                image.truncate(64 << 20)
            make: list[str | Path] = ["mkfs.ext4", "-q", "-O", "^has_journal", below / "image"]
            subprocess.run(make, check=True, capture_output=True, env=_PROGRAMS)
            mount("-o", "loop", below / "image", disk)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"this test mounts a disk: {error}")
        yield disk
    finally:
        for directory in reversed(mounted):
            subprocess.run(["umount", directory], check=True, env=_PROGRAMS)
