"""Builds the command lines of local sandboxes: what one sees, what it may use, how a program enters it. Pure."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sshgate.config.model import Profile
from sshgate.config.values import quantity_value

USER = "dev"
UID = 1000
HOME = f"/home/{USER}"
HOST_NAME = "sandbox"

# This machine's programs, mounted read-only. A symbolic link (/bin -> usr/bin) becomes the same link.
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt")
# The parts of /etc that programs need and that hold no secret.
ETC = (
    "alternatives", "bash.bashrc", "inputrc", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "mime.types",
    "os-release", "profile", "protocols", "services", "ssl/certs", "ssl/openssl.cnf", "terminfo", "timezone", "vim",
)  # fmt: skip
FILES = {
    "passwd": f"root:x:0:0:root:/root:/usr/sbin/nologin\n{USER}:x:{UID}:{UID}:{USER}:{HOME}:/bin/bash\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "group": f"root:x:0:\n{USER}:x:{UID}:\nnogroup:x:65534:\ntty:x:5:\n",
    "hosts": f"127.0.0.1 localhost {HOST_NAME}\n::1 localhost\n",
    "hostname": f"{HOST_NAME}\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}

# Bytes that a sandbox may use if the profile sets no limit.
USUAL_MEMORY = 4 << 30
USUAL_STORAGE = 8 << 30
# The descriptor by which nsenter gets the outer user namespace.
OWNER = 9
PROCESSES = 1024
OPEN_FILES = 8192


@dataclass(frozen=True, slots=True)
class Abilities:
    """The optional features of the installed bubblewrap, which refuses options that it does not know."""

    sizes: bool = True
    """It can limit the size of a tmpfs (0.7 and later)."""
    closes_users: bool = True
    """It can forbid user namespaces inside (0.8 and later)."""

    @classmethod
    def of(cls, help_text: str) -> Abilities:
        """Parse the output of ``bwrap --help``."""
        return cls("--size " in help_text, "--disable-userns" in help_text)


def environment(shell: str) -> dict[str, str]:
    """The whole environment of a launcher, before that of the request is added; none of the gateway's is passed on."""
    return {
        "HOME": HOME,
        "LANG": "C.UTF-8",
        "LOGNAME": USER,
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "SHELL": shell,
        "USER": USER,
    }


def confine(profile: Profile, uid: int | None) -> list[str]:
    """The start of every command line: resource limits, and the user to run as.

    ``uid`` is set if the gateway is root: no process of a sandbox may be root on this machine, whatever its user id
    inside. The limits are per process, except for the number of processes, which is that of the sandbox. They are set
    outside: what enters a sandbox can be traced from inside. The process is killed when the gateway ends, even if it is
    stopped.
    """
    words = ["/bin/sh", "-c", f'{_limits(profile)}exec "$@"', "sh", "setpriv", "--no-new-privs", "--pdeathsig=KILL"]
    if uid is not None:
        words += [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    return [*words, "--"]


def _limits(profile: Profile) -> str:
    """Shell code that sets the limits, or ends the shell. The program ``prlimit`` would take twice as long.

    Processes are ``-p`` in dash and busybox, which is no limit that can be set in bash. Blocks have 512 bytes. ``-v``
    would not do for memory: node and other runtimes reserve far more address space than they use.
    """
    memory = memory_of(profile)
    size = _limit(profile, "ephemeral-storage") or USUAL_STORAGE
    storage, files, processes = (
        _allowed(resource.RLIMIT_FSIZE, size),
        _allowed(resource.RLIMIT_NOFILE, OPEN_FILES),
        _allowed(resource.RLIMIT_NPROC, PROCESSES),
    )
    data = f"ulimit -d {_allowed(resource.RLIMIT_DATA, memory) // 1024}&&" if memory is not None else ""
    return (
        f"ulimit -c 0&&ulimit -n {files}&&ulimit -f {storage // 512}&&{data}"
        f"{{ ulimit -u {processes} 2>/dev/null||ulimit -p {processes};}}||exit 1;"
    )


def _allowed(kind: int, size: int) -> int:
    """Not more than the gateway itself may have, which only root could raise."""
    most = resource.getrlimit(kind)[1]
    return size if most == resource.RLIM_INFINITY else min(size, most)


def build(profile: Profile, etc: Path, info: int, able: Abilities) -> list[str]:
    """bubblewrap's command line, without the program.

    There are few mounts because bubblewrap takes half a millisecond for each. The home, /tmp and /dev/shm may each
    hold half of the profile's memory, since their contents are in this machine's memory.

    Args:
        profile: The sandbox's profile.
        etc: The directory that becomes /etc.
        info: The descriptor to which bubblewrap writes the process id.
        able: What the installed bubblewrap can do.
    """
    words = ["bwrap", *(f"--unshare-{kind}" for kind in ("user", "pid", "ipc", "uts", "net"))]
    words += ["--die-with-parent", "--new-session"]
    if able.closes_users:
        # Much of the kernel's attack surface is reachable only as root of some user namespace.
        words.append("--disable-userns")
    words += ["--uid", str(UID), "--gid", str(UID), "--hostname", HOST_NAME, "--info-fd", str(info)]
    words += [*_system(), "--ro-bind", str(etc), "/etc", "--proc", "/proc", "--dev", "/dev"]
    half = (memory_of(profile) or USUAL_MEMORY) // 2
    for name, mode in (("/dev/shm", "1777"), ("/tmp", "1777"), ("/home", "0755")):
        words += ["--perms", mode, *(["--size", str(half)] if able.sizes else []), "--tmpfs", name]
    words += ["--perms", "0700", "--dir", HOME, "--dir", "/run", "--dir", "/var", "--symlink", "../tmp", "/var/tmp"]
    for bind in profile.binds:
        words += ["--bind", str(bind), str(bind)]
    return [*words, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", HOME, "--"]


@cache  # looked at once: these directories stay as they are while a gateway runs
def _system() -> tuple[str, ...]:
    words: list[str] = []
    for name in SYSTEM:
        path = Path(name)
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), name]
        elif path.is_dir():
            words += ["--ro-bind", name, name]
    return tuple(words)


def enter(pid: int, terminal: bool, argv: Sequence[str]) -> list[str]:
    """The words after those of ``confine`` that run a program inside the sandbox whose process 1 is ``pid``.

    bubblewrap nests two user namespaces. The outer one, on descriptor ``OWNER``, owns all other namespaces; programs
    run in the inner one, that of process 1. They must be entered in this order: from the inner one, the others are no
    longer accessible. A shell closes ``OWNER`` and sets the umask, which would otherwise be the gateway's. A script of
    ours, as the launcher, does this itself: another shell would take half a millisecond.

    The program leads a new session, so that its process group can be signalled; with ``terminal``, its stdin becomes
    the session's controlling terminal.
    """
    words = ["nsenter", f"--target={pid}", f"--user=/proc/self/fd/{OWNER}", "--preserve-credentials"]
    words += ["--mount", "--pid", "--net", "--ipc", "--uts", "--"]
    words += ["nsenter", "--user=/proc/1/ns/user", "--preserve-credentials", "--", "setsid"]
    if terminal:
        words.append("--ctty")
    script, *rest = argv[2:] if tuple(argv[:2]) == ("/bin/sh", "-c") else ('exec "$@"', "sh", *argv)
    return [*words, "/bin/sh", "-c", f"umask 022;exec {OWNER}<&-;{script}", *rest]


def memory_of(profile: Profile) -> int | None:
    """The profile's memory limit in bytes; ``None`` if it sets none."""
    return _limit(profile, "memory")


def _limit(profile: Profile, name: str) -> int | None:
    limit = profile.resources.limits.get(name)
    return int(quantity_value(limit)) if limit is not None else None
