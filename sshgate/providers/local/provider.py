"""The ``Provider`` that makes sandboxes on this machine, with bubblewrap."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path

import structlog

from sshgate.config.model import Address, Limits, Profile, SandboxPlace
from sshgate.config.values import is_loopback
from sshgate.errors import ConfigError, StartFailed, Unavailable
from sshgate.providers.local import bubblewrap, cgroup
from sshgate.providers.local.named import LocalNamed
from sshgate.providers.local.sandbox import LocalSandbox, Tree
from sshgate.providers.local.system import handles, leave_keyring, pipes, spawn
from sshgate.sandbox import temporary
from sshgate.sandbox.interfaces import Notice, Order
from sshgate.sandbox.launcher import FOREVER
from sshgate.sandbox.side_execs import ExecLimits

log = structlog.get_logger("sshgate.sandbox.local")

# What keeps a sandbox open. It prints an empty line once all mounts exist; bubblewrap reports the process id before
# that. The gateway has the other end of its input: when that closes, it kills all programs of the sandbox. bubblewrap
# would too, but not if the gateway is killed before bubblewrap has tied itself to it, which is later than the line.
HOLDER = ("/bin/sh", "-c", "echo||exit 1;read -r x;kill -KILL -1", FOREVER)
START_SECONDS = 10.0
PROGRAMS = ("bwrap", "nsenter", "setpriv", "setsid")
# If the gateway is root, every sandbox gets its own user id, from a range that systems do not assign.
FIRST_UID = 0x6A00_0000
UIDS = 0x1_0000
ETC_PREFIX = "sshgate-local-etc-"


class LocalProvider:
    """The ``Provider`` for one machine. No sandbox outlives the gateway, however it ends."""

    def __init__(self, place: SandboxPlace) -> None:
        self._place = place
        self._sandboxes: set[LocalSandbox] = set()
        self._limits = ExecLimits()
        self._uids = count()
        self._etc: Path | None = None
        self._etc_lock = -1
        self._able = bubblewrap.Abilities()
        self._groups: cgroup.Hierarchy | None = None
        self.named = LocalNamed(self.create, self._sandboxes)
        self.homes = None
        self.user_records = None
        self.spending_records = None

    async def open(self) -> None:
        missing = [program for program in PROGRAMS if shutil.which(program) is None]
        if missing:
            raise Unavailable(
                f"{', '.join(missing)} missing on this machine; run: sudo apt-get install bubblewrap util-linux"
            )
        keep_descriptors()
        leave_keyring()
        self._groups = cgroup.here()
        if self._groups is None:
            log.warning("a sandbox's memory is limited per program only: no control group can be made for it here")
        else:
            cgroup.sweep(self._groups)
        self._able = await abilities()
        self._etc, self._etc_lock = make_etc()
        sandbox = await self.create(Order(Profile(), "probe", "probe"), lambda text: None)
        await sandbox.delete()

    async def create(self, order: Order, notice: Notice) -> LocalSandbox:
        name = f"local-{secrets.token_hex(5)}"
        uid = bind_owner(order.profile) or FIRST_UID + next(self._uids) % UIDS if os.geteuid() == 0 else None
        group = None
        try:
            if self._groups is not None and (memory := bubblewrap.memory_of(order.profile)) is not None:
                group = cgroup.make(self._groups, name, memory)
            tree = await self._spawn(order.profile, uid, group)
        except BaseException as error:
            if group is not None:
                cgroup.remove(group)
                # What was killed may be in it for another moment.
                asyncio.get_running_loop().call_later(1.0, cgroup.remove, group)
            if isinstance(error, OSError):
                raise Unavailable(f"no sandbox can be started on this machine: {error.strerror}.") from error
            raise
        sandbox = LocalSandbox(name, order, uid, group, tree, self._limits, self._sandboxes.discard)
        self._sandboxes.add(sandbox)
        return sandbox

    def reconfigure(self, profiles: Mapping[str, Profile], limits: Limits) -> None:
        """Do nothing: every order has its profile, and admission enforces the limits."""

    def counts(self) -> Mapping[tuple[str, ...], float]:
        return Counter((sandbox.order.profile.name, "claimed") for sandbox in self._sandboxes)

    async def check(self) -> None:
        """Do nothing: nothing but this machine is needed."""

    async def close(self) -> None:
        await self.named.close()
        await asyncio.gather(*(sandbox.delete() for sandbox in list(self._sandboxes)))
        if self._etc is not None:
            shutil.rmtree(self._etc, ignore_errors=True)
            os.close(self._etc_lock)
            self._etc = None

    async def _spawn(self, profile: Profile, uid: int | None, group: Path | None) -> Tree:
        """Start bubblewrap, and return once the sandbox's mounts exist.

        Raises ``Unavailable`` or ``OSError``. Nothing is left running or open when it raises or is cancelled.
        """
        assert self._etc is not None, "open() first"
        loop = asyncio.get_running_loop()
        (info, info_end), (output, output_end), (input_end, lifeline) = pipes(3)
        words = [
            *bubblewrap.confine(profile, uid),
            *bubblewrap.build(profile, self._etc, info_end, self._able),
            *HOLDER,
        ]
        actions = [
            (os.POSIX_SPAWN_DUP2, input_end, 0),
            (os.POSIX_SPAWN_DUP2, output_end, 1),
            (os.POSIX_SPAWN_DUP2, output_end, 2),
            (os.POSIX_SPAWN_DUP2, info_end, info_end),
        ]
        outer = None
        try:
            try:
                outer = spawn(words, bubblewrap.environment(profile.shell), actions)
            finally:
                for end in (input_end, output_end, info_end):
                    os.close(end)
            if group is not None:
                # The first move into any group for a while takes the kernel up to 10 ms. Those of the programs, which
                # are waited for, are quick after it.
                loop.run_in_executor(None, cgroup.hold, group, outer)
            async with asyncio.timeout(START_SECONDS):
                first_line = await _line(loop, output)
            if first_line != b"\n":
                raise Unavailable(explain(first_line.decode("utf-8", "replace")))
            inner = int(json.loads(os.read(info, 4096))["child-pid"])
            return Tree(outer, inner, lifeline, *handles(outer, inner))
        except BaseException as error:
            os.close(lifeline)
            if outer is not None:
                _abandon(outer)
            if isinstance(error, TimeoutError):
                raise Unavailable("a sandbox was not ready within 10 s; the machine is too busy.") from error
            raise
        finally:
            os.close(info)
            os.close(output)


def keep_descriptors() -> None:
    """Make all descriptors but 0 to 2 non-inheritable, so that none reaches a sandbox."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        with contextlib.suppress(OSError):
            if int(name) > 2:
                os.set_inheritable(int(name), False)


async def abilities() -> bubblewrap.Abilities:
    """What the installed bubblewrap can do. Raises ``Unavailable`` if it does not start."""
    try:
        asked = await asyncio.create_subprocess_exec(
            PROGRAMS[0], "--help", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        output, _ = await asked.communicate()
    except OSError as error:
        raise Unavailable(f"bubblewrap does not start on this machine: {error.strerror}.") from error
    return bubblewrap.Abilities.of(output.decode("utf-8", "replace"))


def bind_owner(profile: Profile) -> int | None:
    """The user id that owns the profile's ``binds``, as which a sandbox can write to them; ``None`` without any.

    Raises ``StartFailed`` if one is missing or owned by root, as which no sandbox may run, or if the owners differ.
    """
    owners = set()
    for bind in profile.binds:
        try:
            owners.add(bind.stat().st_uid)
        except OSError as error:
            raise StartFailed(f"the directory {bind} cannot be bound: {error.strerror}; see `binds`.") from error
    if not owners:
        return None
    if len(owners) > 1 or 0 in owners:
        names = ", ".join(str(bind) for bind in profile.binds)
        raise StartFailed(
            f"a gateway that runs as root needs `binds` that belong to one other user; chown {names}, or run the "
            "gateway as their owner."
        )
    return owners.pop()


def make_etc() -> tuple[Path, int]:
    """Create the directory that becomes /etc in sandboxes, from a few harmless files of this machine.

    Returns it with a descriptor that holds a lock on it, see ``temporary.make_directory``.
    """
    etc, lock = temporary.make_directory(ETC_PREFIX)
    etc.chmod(0o755)
    for name in bubblewrap.ETC:
        source, target = Path("/etc", name), etc / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink() or source.is_file():
            shutil.copy2(source, target, follow_symlinks=False)
        elif source.is_dir():
            shutil.copytree(source, target, symlinks=True)
    for name, text in bubblewrap.FILES.items():
        (etc / name).write_text(text)
    (etc / "mtab").symlink_to("/proc/self/mounts")
    return etc, lock


def explain(output: str) -> str:
    """Explain bubblewrap's error output in one sentence."""
    if "ermission denied" in output or "not permitted" in output:
        return (
            "this machine does not let bubblewrap make user namespaces; run: "
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 kernel.unprivileged_userns_clone=1"
        )
    last = output.strip().splitlines()[-1] if output.strip() else "it printed nothing"
    return f"bubblewrap cannot make a sandbox here: {last}."


def refuse_public(addresses: Iterable[Address]) -> None:
    """Raise ``ConfigError`` unless all addresses are loopback: local sandboxes are not for users from the network."""
    mistakes = [
        f"the local provider listens on loopback only, not on {address}; use 127.0.0.1 or [::1]."
        for address in addresses
        if not is_loopback(address)
    ]
    if mistakes:
        raise ConfigError(mistakes)


def _abandon(outer: int) -> None:
    # Kill process 1 of the sandbox first: shortly after its creation it does not yet die with bubblewrap.
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{outer}/task/{outer}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
    os.kill(outer, signal.SIGKILL)
    os.waitpid(outer, 0)


async def _line(loop: asyncio.AbstractEventLoop, descriptor: int) -> bytes:
    """Read from a pipe until its end, or until the output is a single empty line."""
    output = b""
    readable = asyncio.Event()
    os.set_blocking(descriptor, False)
    loop.add_reader(descriptor, readable.set)
    try:
        while output != b"\n":
            await readable.wait()
            readable.clear()
            data = os.read(descriptor, 4096)
            if not data:
                break
            output += data
    finally:
        loop.remove_reader(descriptor)
    return output
