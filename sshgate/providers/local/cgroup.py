"""Control groups, if this machine lets us create them: they limit all memory of a sandbox, including tmpfs files."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

PREFIX = "sshgate-"


class Hierarchy(NamedTuple):
    """Where groups are created, and the names of the files that limit them."""

    parent: Path
    memory: str
    swap: str
    swap_holds_both: bool
    """Whether the limit in ``swap`` is for memory and swap together, as in cgroup v1."""


def here() -> Hierarchy | None:
    """Where this process can create groups for its sandboxes; ``None`` if it cannot."""
    place = find(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())
    return place if place is not None and _usable(place) else None


def find(mounts: str, own: str) -> Hierarchy | None:
    """Where groups could be created, according to the contents of /proc/self/mountinfo and /proc/self/cgroup."""
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
    """Create a group whose processes may use ``size`` bytes of memory. Raises ``OSError``; then there is no group."""
    group = place.parent / group_name(name)
    group.mkdir()
    try:
        _write(f"{group}/{place.memory}", size)
        with contextlib.suppress(FileNotFoundError):  # a kernel that does not count swap
            _write(f"{group}/{place.swap}", size if place.swap_holds_both else 0)
    except OSError:
        remove(group)
        raise
    return group


def hold(group: Path, pid: int) -> bool:
    """Move a process into the group; ``False`` if that fails. May block for 10 ms: not for the event loop."""
    try:
        _write(f"{group}/cgroup.procs", pid)
    except OSError:
        return False
    return True


def holds(group: Path, pid: int) -> bool:
    """Whether a process is in the group; true as well if it has ended."""
    try:
        return group.name in Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return True


def remove(group: Path) -> None:
    """Remove the group. Never raises: one that is not empty yet is removed at the next start."""
    with contextlib.suppress(OSError):
        group.rmdir()


def sweep(place: Hierarchy) -> None:
    """Remove the groups of gateways of this pid namespace that were killed."""
    for old in place.parent.glob(f"{PREFIX}*-{_pid_namespace()}-*"):
        pid = old.name.removeprefix(PREFIX).partition("-")[0]
        if not Path("/proc", pid).exists():
            remove(old)


def group_name(name: str) -> str:
    """The name of this gateway's group for one sandbox."""
    return f"{PREFIX}{os.getpid()}-{_pid_namespace()}-{name}"


def _write(name: str, number: int) -> None:
    descriptor = os.open(name, os.O_WRONLY)
    try:
        os.write(descriptor, str(number).encode())
    finally:
        os.close(descriptor)


def _pid_namespace() -> int:
    """The number of our pid namespace: in another one a process id means another process."""
    return Path("/proc/self/ns/pid").stat().st_ino


def _mount(line: str) -> tuple[str, str, str, str]:
    """Root, mount point, type and super options of a line of mountinfo (proc_pid_mountinfo(5))."""
    before, _, after = line.partition(" - ")
    fields = before.split()
    kind, _, options = after.split(" ", 2)
    return fields[3], fields[4], kind, options


def _divided(ours: Path, top: Path) -> Path | None:
    """Our group or its parent, whichever delegates the memory controller to its children first; ``None`` if neither.

    In cgroup v2 a group that has processes cannot delegate it, except for the root group.
    """
    for group in (ours, ours.parent):
        with contextlib.suppress(OSError):
            if group.is_relative_to(top) and "memory" in (group / "cgroup.subtree_control").read_text().split():
                return group
    return None


def _usable(place: Hierarchy) -> bool:
    """Whether groups can be created there: it may be read-only, or belong to another user."""
    if not Path("/proc/thread-self/children").exists():
        return False
    # In cgroup v2, moving a process also requires write access to the common ancestor of both groups.
    if not place.swap_holds_both and not os.access(place.parent / "cgroup.procs", os.W_OK):
        return False
    try:
        remove(make(place, "probe", 1 << 30))
    except OSError:
        return False
    return True
