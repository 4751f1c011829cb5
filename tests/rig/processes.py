"""What runs on this machine, as /proc shows it."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import NamedTuple


class Seen(NamedTuple):
    """A process that cannot be mistaken for a later one with the same number."""

    pid: int
    started: int


def descendants(pid: int) -> set[Seen]:
    """All processes below ``pid``, without itself."""
    children: dict[int, list[Seen]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(Seen(int(entry.name), int(fields[19])))
    found: set[Seen] = set()
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found.update(below)
        waiting += [child.pid for child in below]
    return found


def children_named(pid: int, name: str) -> set[Seen]:
    """The processes right below ``pid`` that run the program ``name``."""
    found = set()
    for seen in descendants(pid):
        fields = _stat(seen.pid)
        if fields and int(fields[1]) == pid and Path(f"/proc/{seen.pid}/comm").read_text().strip() == name:
            found.add(seen)
    return found


def alive(seen: set[Seen]) -> list[str]:
    """The command lines of those that still run; zombies have ended."""
    texts = []
    for pid, started in sorted(seen):
        fields = _stat(pid)
        if fields and int(fields[19]) == started and fields[0] not in "ZX":
            texts.append(f"{pid} {_commandline(pid)}")
    return texts


def resident(pid: int) -> int:
    """Bytes of memory that the process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    """The processor time that the process has used, without its children's; 0 if there is none."""
    fields = _stat(pid) or ["0"] * 13
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def without_descriptors(pid: int) -> Iterator[None]:
    """No descriptor is left for the process while the body runs."""
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = {int(one.name) for one in Path(f"/proc/{pid}/fd").iterdir()}
    free = next(number for number in count() if number not in used)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, usual[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)


def _stat(pid: int) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _commandline(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")[:200]
    except OSError:
        return "(ended)"
