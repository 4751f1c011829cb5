"""How programs of a local sandbox begin and end: signals, streams, memory, keyring, and those that are stopped."""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from sshgate.config.model import Profile, Resources
from sshgate.providers.local import cgroup
from sshgate.providers.local.process import LocalProcess
from sshgate.providers.local.provider import LocalProvider
from sshgate.sandbox.interfaces import Sandbox
from sshgate.stream.interfaces import STDOUT, Exited, Signal, Signalled
from sshgate.stream.terminal import Terminal, TerminalSize
from tests.contract.programs import begin, everything, gateway, make, run, until_output
from tests.rig.processes import alive, descendants
from tests.rig.waiting import until

pytestmark = pytest.mark.local


async def test_files_and_pages_in_memory_are_bounded_too(provider: LocalProvider) -> None:
    small = replace(Profile(), resources=Resources(limits={"memory": "64Mi"}))
    sandbox = await make(provider, small)
    assert (await run(sandbox, b"head -c 40000000 /dev/zero >/dev/shm/x"))[2] == Exited(1)
    assert (await run(sandbox, b"df --output=size -B1 /dev/shm | tail -n 1; rm /dev/shm/x"))[0].strip() == b"33554432"
    assert (await run(sandbox, b"touch /dev/x"))[2] == Exited(1)
    assert (await run(sandbox, b"echo kept >/dev/null; head -c 1 /dev/zero | wc -c; tty"))[0] == b"1\nnot a tty\n"
    if cgroup.here() is None:
        pytest.skip("no control group can be made here")
    hold = b"import os; f = os.memfd_create('x')\nfor _ in range(100): os.write(f, bytes(1 << 20))"
    share = b"import mmap; m = mmap.mmap(-1, 100 << 20)\nfor _ in range(100): m.write(bytes(1 << 20))"
    for code in (hold, share):
        assert (await run(sandbox, b'exec python3 -c "$CODE"', environment={"CODE": code}))[2] == Signalled("KILL")
    assert (await run(sandbox, b"exit 3"))[2] == Exited(3)
    await sandbox.delete()
    assert groups() == []


async def test_a_program_without_a_launcher_is_in_the_group_before_its_first_input(provider: LocalProvider) -> None:
    if cgroup.here() is None:
        pytest.skip("no control group can be made here")
    sandbox = await make(provider, replace(Profile(), resources=Resources(limits={"memory": "64Mi"})))
    # What moves processes is busy until the program runs.
    busy = threading.Event()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    moving = asyncio.get_running_loop().run_in_executor(None, busy.wait)
    process = await sandbox.start(("/bin/sh", "-c", "echo begun;read x;cat /proc/self/cgroup"), None)
    try:
        assert await process.read() == (STDOUT, b"begun\n")
        busy.set()
        await moving
        await process.write(b"\n")
        seen = b""
        while (chunk := await process.read()) is not None:
            seen += chunk[1]
        assert sandbox.id.encode() in seen
    finally:
        busy.set()
        await process.close()


def groups() -> list[Path]:
    """The control groups of this process's sandboxes."""
    place = cgroup.here()
    return list(place.parent.glob(f"{cgroup.PREFIX}{os.getpid()}-*")) if place is not None else []


async def test_programs_begin_with_every_signal_at_its_default(provider: LocalProvider) -> None:
    numbers = (signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGXFSZ, signal.SIGRTMIN)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGALRM})
    mask = os.umask(0o077)
    try:
        sandbox = await make(provider)
        for terminal in (None, Terminal("xterm", TerminalSize(80, 24))):
            output, _, _ = await run(sandbox, b"grep -E 'Sig(Blk|Ign)' /proc/self/status; umask", terminal=terminal)
            _, blocked_inside, _, ignored, mask_inside = output.split()
            assert (int(blocked_inside, 16), mask_inside) == (0, b"0022")
            # glibc's posix_spawn ignores 32 and 33, its own, whose handlers every program with threads installs.
            assert int(ignored, 16) & ~(0b11 << 31) == 0
    finally:
        os.umask(mask)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for number, handler in before.items():
            signal.signal(number, handler)


async def test_standard_streams_can_be_opened_by_path(sandbox: Sandbox) -> None:
    output = await run(sandbox, b"cat /dev/stdin >/dev/stdout; echo oops >/dev/stderr", b"hello\n")
    assert output == (b"hello\n", b"oops\n", Exited(0))


async def test_the_system_is_known_by_name(sandbox: Sandbox) -> None:
    name = platform.freedesktop_os_release()["ID"].encode()
    assert (await run(sandbox, b'. /etc/os-release; echo "$ID"'))[0] == name + b"\n"


# keyctl(2) by number: what JOIN_SESSION_KEYRING and SEARCH answer.
KEYS = """
import ctypes, os, platform, sys
number = {"x86_64": (250, 248), "aarch64": (219, 217)}[platform.machine()]
def call(which, *words):
    words = [word if isinstance(word, bytes) else ctypes.c_long(word) for word in words]
    answer = ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(which), *words)
    return answer if answer >= 0 else os.strerror(ctypes.get_errno())
def keyctl(*words): return call(number[0], *words)
def add(ring): return call(number[1], b"user", b"sshgate-test", b"hush", 4, ring)
"""
WITH_A_KEY = f"""{KEYS}
assert isinstance(keyctl(1, 0), int)
assert isinstance(add(-3), int)
os.execv(sys.argv[1], sys.argv[1:])
"""
LOOK = KEYS + 'print(keyctl(10, -3, b"user", b"sshgate-test", 0), add(-3), type(keyctl(1, 0)).__name__)'


async def test_the_session_keyring_of_the_gateways_user_is_not_seen() -> None:
    if platform.machine() not in ("x86_64", "aarch64") or "keys" not in os.listdir("/proc"):  # noqa: PTH208
        pytest.skip("no keys here")
    looked = await gateway("python3", "-c", LOOK, before=(sys.executable, "-c", WITH_A_KEY))
    output, _ = await looked.communicate()
    # Neither read nor written, but a program can make one of its own.
    assert output.split(b"\n")[0] == b"Key has been revoked Key has been revoked int"


async def test_a_stopped_program_is_seen_to_end(sandbox: Sandbox) -> None:
    for terminal in (None, Terminal("xterm", TerminalSize(80, 24))):
        program = await begin(sandbox, b"(sleep 0.5; kill -CONT $$)& kill -STOP $$; exit 7", terminal)
        assert (await everything(program))[2] == Exited(7)
        stopped = await begin(sandbox, b"echo $$; kill -STOP $$; exit 7", terminal)
        pid = await until_output(stopped, b"\n")
        assert (await run(sandbox, b"sleep 0.2; grep State /proc/$P/status", environment={"P": pid.strip()}))[0] == (
            b"State:\tT (stopped)\n"
        )
        await stopped.control(Signal("KILL"))
        assert (await everything(stopped))[2] == Signalled("KILL")


async def test_deleting_a_sandbox_leaves_no_stopped_program(provider: LocalProvider) -> None:
    before = descendants(os.getpid())
    sandbox = await make(provider)
    stopped = [
        await begin(sandbox, b"echo up; kill -STOP $$", terminal)
        for terminal in (None, Terminal("xterm", TerminalSize(80, 24)))
    ]
    for program in stopped:
        await until_output(program, b"up")
    below = descendants(os.getpid()) - before
    await sandbox.delete()
    assert alive(below) == []
    assert groups() == []
    for program in stopped:
        await program.close()


async def test_what_stops_just_after_it_was_woken_is_woken_again(sandbox: Sandbox) -> None:
    """nsenter stops itself some time after its program has been stopped, maybe after that was woken to end."""
    program = await begin(sandbox, b"echo up; exec sleep 1000")
    await until_output(program, b"up")
    process = cast(LocalProcess, program.process)
    process.wake()
    os.kill(process._child, signal.SIGSTOP)
    stat = Path(f"/proc/{process._child}/stat")
    await asyncio.to_thread(until, lambda: stat.read_text().split()[2] != "T", 10, "its being woken")
    await program.close()
