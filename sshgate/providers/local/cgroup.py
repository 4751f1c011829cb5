"""Control groups, where this machine lets us make them: all the memory of a sandbox, its files in memory included."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

PREFIX = "sshgate-"


class Hierarchy(NamedTuple):
    """Where groups are made, and the files that limit them."""

    parent: Path
    memory: str
    swap: str
    swap_holds_both: bool
    """Whether the limit in ``swap`` is that of memory and swap together, as in version 1."""


def here() -> Hierarchy | None:
    """The place for the groups of this process's sandboxes; ``None`` where it can make none."""
    place = find(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())
    return place if place is not None and _usable(place) else None


def find(mounts: str, own: str) -> Hierarchy | None:
    """The place that the texts of /proc/self/mountinfo and /proc/self/cgroup speak of."""
    for line in own.splitlines():
        number, controllers, path = line.split(":", 2)
        for root, point, kind, options in map(_mount, mounts.splitlines()):
            if not (path + "/").startswith(root.rstrip("/") + "/"):
                continue
            ours = Path(point) / path[len(root.rstrip("/")) :].lstrip("/")
            if kind == "cgroup" and "memory" in controllers.split(",") and "memory" in options.split(","):
                return Hierarchy(ours, "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", True)
            if kind == "cgroup2" and number == "0" and (parent := _divided(ours, Path(point))):
                return Hierarchy(parent, "memory.max", "memory.swap.max", False)
    return None


def make(place: Hierarchy, name: str, size: int) -> Path:
    """A group whose processes hold ``size`` bytes at most. Raises ``OSError``."""
    group = place.parent / f"{PREFIX}{os.getpid()}-{name}"
    group.mkdir()
    try:
        (group / place.memory).write_text(str(size))
        swap = group / place.swap
        if swap.exists():
            swap.write_text(str(size if place.swap_holds_both else 0))
    except OSError:
        remove(group)
        raise
    return group


def hold(group: Path, pid: int) -> bool:
    """Move a process there; ``False`` when it cannot be. The kernel may take 10 ms for it: not for the event loop."""
    try:
        (group / "cgroup.procs").write_text(str(pid))
    except OSError:
        return False
    return True


def holds(group: Path, pid: int) -> bool:
    """Whether a process, if it has not ended, is there."""
    try:
        return group.name in Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return True


def remove(group: Path) -> None:
    """Never raises: one that is not empty yet goes at the next start."""
    with contextlib.suppress(OSError):
        group.rmdir()


def sweep(place: Hierarchy) -> None:
    """Remove what gateways left that were killed."""
    for old in place.parent.glob(f"{PREFIX}*"):
        pid = old.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            remove(old)


def _mount(line: str) -> tuple[str, str, str, str]:
    """Of a line of mountinfo (proc_pid_mountinfo(5)) the root, the mount point, the type and the type's options."""
    before, _, after = line.partition(" - ")
    fields = before.split()
    kind, _, options = after.split(" ", 2)
    return fields[3], fields[4], kind, options


def _divided(ours: Path, top: Path) -> Path | None:
    """The nearest group, ours or the one above, that hands its memory controller to those below it.

    In version 2 a group with processes of its own cannot, but for the machine's root.
    """
    for group in (ours, ours.parent):
        with contextlib.suppress(OSError):
            if group.is_relative_to(top) and "memory" in (group / "cgroup.subtree_control").read_text().split():
                return group
    return None


def _usable(place: Hierarchy) -> bool:
    """Whether groups can be made there: it may be read-only, or somebody else's."""
    if not Path("/proc/thread-self/children").exists():
        return False
    # In version 2, to move a process also takes the right to write for the group above both.
    if not place.swap_holds_both and not os.access(place.parent / "cgroup.procs", os.W_OK):
        return False
    try:
        remove(make(place, "probe", 1 << 30))
    except OSError:
        return False
    return True
