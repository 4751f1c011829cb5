"""A profile in bubblewrap's words: mounts, namespaces and limits of one local sandbox. Pure.

What is enforced: each program's private memory (RLIMIT_DATA), the number of processes, open files and the
size of a file, the size of the home, of /tmp and of /dev/shm, and the sandbox's lifetime. What is not: the
share of the CPU, and the memory of all programs together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sshgate.config import Profile
from sshgate.errors import StartFailed

USER = "dev"
UID = 1000
HOME = "/home/dev"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROCESSES = 1024
OPEN_FILES = 65_536
OPEN_FILES_AT_FIRST = 1024
SHARED_MEMORY = 64 << 20
SMALL = 1 << 20

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


@dataclass(frozen=True, slots=True)
class Machine:
    """What this machine and its bubblewrap offer."""

    bubblewrap: str
    """Where the program is."""
    etc: Path
    """The /etc that every sandbox sees."""
    sized: bool = True
    """It can limit a tmpfs (0.7 and later)."""
    closes_user_namespaces: bool = True
    """It can forbid user namespaces inside (0.8 and later)."""
    counts_processes_by_sandbox: bool = True
    """The kernel counts RLIMIT_NPROC in each user namespace (Linux 5.14 and later)."""


def arguments(machine: Machine, profile: Profile, hostname: str, links: Mapping[str, str]) -> list[str]:
    """Bubblewrap's arguments. ``links`` are the root's symbolic links (``/bin`` to ``usr/bin``) or, with an
    empty target, its directories."""
    half = str(_bytes(profile, "memory", "4Gi") // 2)

    def tmpfs(path: str, size: str) -> list[str]:
        return [*(["--size", size] if machine.sized else []), "--tmpfs", path]

    words = ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net"]
    words += ["--unshare-cgroup-try", "--uid", str(UID), "--gid", str(UID), "--hostname", hostname]
    words += ["--die-with-parent", "--new-session", "--clearenv"]
    if machine.closes_user_namespaces:
        words.append("--disable-userns")
    words += ["--ro-bind", "/usr", "/usr"]
    for path, target in links.items():
        words += ["--symlink", target, path] if target else ["--ro-bind", path, path]
    words += ["--ro-bind", str(machine.etc), "/etc", "--proc", "/proc", "--dev", "/dev"]
    words += [*tmpfs("/dev/shm", str(SHARED_MEMORY)), "--remount-ro", "/dev"]
    words += [*tmpfs("/tmp", half), *tmpfs(HOME, half)]
    words += ["--dir", "/run", "--dir", "/var", "--symlink", "../tmp", "/var/tmp", "--symlink", "../run", "/var/run"]
    for bind in profile.binds:
        words += ["--bind", str(bind), str(bind)]
    return [*words, "--remount-ro", "/", "--chdir", HOME]


def limits(machine: Machine, profile: Profile) -> dict[str, int]:
    """The hard resource limits of every program, by the names of Python's ``resource``."""
    found = {
        "RLIMIT_CORE": 0,
        "RLIMIT_DATA": _bytes(profile, "memory", "4Gi"),
        "RLIMIT_FSIZE": _bytes(profile, "ephemeral-storage", "8Gi"),
        "RLIMIT_NOFILE": OPEN_FILES,
    }
    if machine.counts_processes_by_sandbox:
        found["RLIMIT_NPROC"] = PROCESSES
    return found


def order(machine: Machine, profile: Profile, hostname: str, links: Mapping[str, str]) -> dict[str, Any]:
    """Everything an usher must know to make one sandbox, but for the account outside."""
    return {
        "bubblewrap": machine.bubblewrap,
        "arguments": arguments(machine, profile, hostname, links),
        "limits": limits(machine, profile),
        "soft": {"RLIMIT_NOFILE": OPEN_FILES_AT_FIRST},
        "environment": {"PATH": PATH, "HOME": HOME, "USER": USER, "LOGNAME": USER, "SHELL": profile.shell},
        "home": HOME,
        "lifetime": profile.limits.max_lifetime,
    }


def quantity(text: str) -> int:
    """A Kubernetes quantity of bytes (``512Mi``, ``4G``, ``1.5Gi``) as a number. Raises ``ValueError``."""
    number = text.rstrip("kMGTi")
    unit = text[len(number) :]
    if unit not in _UNITS:
        raise ValueError(text)
    return int(float(number) * _UNITS[unit])


def _bytes(profile: Profile, resource: str, usual: str) -> int:
    text = profile.resources.limits.get(resource, usual)
    try:
        return max(quantity(text), SMALL)
    except (ValueError, OverflowError) as error:
        raise StartFailed(
            f"profile {profile.name}: the {resource} limit {text!r} is not a size; write it as 512Mi or 4Gi."
        ) from error
