"""What a local sandbox is walled in by, and that nothing of it outlives its end or the gateway's."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from sshgate.config.model import Profile, Resources, SandboxPlace
from sshgate.errors import StartFailed, Unavailable
from sshgate.providers.local import cgroup
from sshgate.providers.local.process import LocalProcess
from sshgate.providers.local.provider import ETC_PREFIX, LocalProvider, abilities, make_etc
from sshgate.providers.local.sandbox import LocalSandbox
from sshgate.sandbox.interfaces import Attachment, Order, Sandbox
from sshgate.stream.interfaces import Exited, Signal, Signalled
from sshgate.stream.terminal import Terminal, TerminalSize
from tests.contract.programs import begin, gateway, make, run, until_output
from tests.rig.waiting import until

pytestmark = pytest.mark.local


def processes(word: str) -> list[int]:
    """The processes of this machine that have ``word`` on their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            pass  # it has ended meanwhile
    return found


async def until_gone(word: str) -> None:
    await asyncio.to_thread(until, lambda: not processes(word), 20.0, f"everything with {word} gone")


def owner_of(path: Path) -> int:
    return path.stat().st_uid


def number() -> str:
    """A time to sleep that no other program of this machine sleeps."""
    return str(10**8 + secrets.randbelow(10**8))


async def test_nothing_of_the_gateways_environment_gets_in(monkeypatch: pytest.MonkeyPatch, local: None) -> None:
    monkeypatch.setenv("A_SECRET_OF_THE_GATEWAY", "hush")
    provider = LocalProvider(SandboxPlace(provider="local"))
    await provider.open()
    try:
        output, _, _ = await run(await make(provider), b"cat /proc/*/environ; env")
    finally:
        await provider.close()
    assert b"HOME=/home/dev" in output
    assert b"hush" not in output


async def test_a_program_has_no_privilege_and_cannot_get_one(sandbox: Sandbox) -> None:
    output, _, _ = await run(sandbox, b"id -u; grep -E 'Cap(Eff|Prm|Amb)|NoNewPrivs' /proc/self/status")
    assert output.split() == (
        b"1000 CapPrm: 0000000000000000 CapEff: 0000000000000000 CapAmb: 0000000000000000 NoNewPrivs: 1".split()
    )
    if not (await abilities()).closes_users:
        pytest.skip("this bubblewrap cannot forbid user namespaces")
    assert (await run(sandbox, b"unshare --user true"))[2] != Exited(0)


async def test_a_program_is_not_root_outside_either(sandbox: Sandbox) -> None:
    word = number()
    sleeper = await begin(sandbox, f"echo up; exec sleep {word}".encode())
    await until_output(sleeper, b"up")
    owners = {owner_of(Path("/proc", str(pid))) for pid in processes(word)}
    assert owners
    assert 0 not in owners
    await sleeper.close()


async def test_the_system_is_read_only_and_homes_are_private(provider: LocalProvider, sandbox: Sandbox) -> None:
    for path in (b"/x", b"/usr/x", b"/etc/x", b"/bin/x"):
        assert (await run(sandbox, b"touch " + path))[2] == Exited(1), path
    assert (await run(sandbox, b"touch ~/x /tmp/x"))[2] == Exited(0)
    assert (await run(await make(provider), b"cat ~/x /tmp/x"))[2] == Exited(1)


async def test_no_secret_of_this_machine_is_in_sight(sandbox: Sandbox) -> None:
    output, _, _ = await run(sandbox, b"ls -d /etc/shadow /etc/ssh /etc/ssl/private /root /sys /var/lib 2>/dev/null")
    assert output == b""


async def test_the_network_is_its_own_loopback(sandbox: Sandbox) -> None:
    output, _, _ = await run(sandbox, b"tail -n +3 /proc/net/dev | cut -d: -f1; tail -n +2 /proc/net/route")
    assert output.split() == [b"lo"]
    connect = b"import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname())"
    assert (await run(sandbox, b'python3 -c "$CONNECT"', environment={"CONNECT": connect}))[1:] == (b"", Exited(0))


async def test_processes_of_others_are_out_of_sight(provider: LocalProvider, sandbox: Sandbox) -> None:
    word = number()
    neighbour = await begin(await make(provider), f"echo up; exec sleep {word}".encode())
    await until_output(neighbour, b"up")
    assert word.encode() not in (await run(sandbox, b"cat /proc/[0-9]*/cmdline"))[0]
    await neighbour.close()


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that everybody can reach, unlike those below pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


async def test_a_bound_directory_is_writable_at_the_same_path(provider: LocalProvider, shared: Path) -> None:
    if os.geteuid() == 0:
        os.chown(shared, 12_345, 12_345)
    profile = replace(Profile(), binds=(shared,))
    output = await run(await make(provider, profile), f"echo hello > {shared}/file && cat {shared}/file".encode())
    assert output == (b"hello\n", b"", Exited(0))
    assert owner_of(shared / "file") == owner_of(shared)


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user binds what is its own")
async def test_a_directory_of_roots_is_bound_to_no_sandbox(provider: LocalProvider, shared: Path) -> None:
    with pytest.raises(StartFailed, match="belong to one other user"):
        await make(provider, replace(Profile(), binds=(shared,)))


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user hears it from bubblewrap")
async def test_a_directory_that_is_missing_is_named(provider: LocalProvider) -> None:
    with pytest.raises(StartFailed, match=r"/no/such/place cannot be bound"):
        await make(provider, replace(Profile(), binds=(Path("/no/such/place"),)))


async def test_limits_of_memory_files_and_processes_hold(provider: LocalProvider) -> None:
    small = replace(Profile(), resources=Resources(limits={"memory": "256Mi", "ephemeral-storage": "1Mi"}))
    sandbox = await make(provider, small)
    assert b"MemoryError" in (await run(sandbox, b"python3 -c 'bytearray(1 << 29)'"))[1]
    assert (await run(sandbox, b"head -c 2000000 /dev/zero > ~/big"))[2] != Exited(0)
    assert (await run(sandbox, b"df --output=size -B1 /tmp ~ | tail -n 2"))[0].split() == [b"134217728"] * 2
    assert (await run(sandbox, b"ulimit -Hu"))[0] == b"1024\n"
    # The limit of processes is counted, also when the gateway is root.
    fork = b"import os, time\nfor _ in range(60): os.fork() or (time.sleep(1), os._exit(0))"
    assert (
        b"BlockingIOError" in (await run(sandbox, b'ulimit -u 30; python3 -c "$FORK"', environment={"FORK": fork}))[1]
    )


async def test_what_enters_a_sandbox_has_its_limits_before_anybody_there_could_trace_it(sandbox: Sandbox) -> None:
    process = await sandbox.start(("/bin/cat",), None)
    assert isinstance(process, LocalProcess)
    outside = Path(f"/proc/{process._child}")  # it waits for the program, and was never inside
    begun = lambda: (outside / "cmdline").read_bytes().startswith(b"nsenter")  # noqa: E731
    await asyncio.to_thread(until, begun, 20.0, "nsenter")
    limits = (outside / "limits").read_text()
    assert re.search(r"Max processes +1024 +1024 ", limits)
    assert re.search(r"Max core file size +0 +0 ", limits)
    await process.close()


async def test_a_program_that_kills_the_whole_sandbox_is_killed_too(sandbox: Sandbox) -> None:
    assert (await run(sandbox, b"kill -9 -1; sleep 60"))[2] == Signalled("KILL")


async def test_deleting_a_sandbox_leaves_no_process_even_one_that_left_its_group(provider: LocalProvider) -> None:
    word = number()
    sandbox = await make(provider)
    escaped = await begin(sandbox, f"setsid sleep {word} & setsid -f sleep {word}; echo up; sleep {word}".encode())
    await until_output(escaped, b"up")
    await sandbox.delete()
    await until_gone(word)
    await sandbox.delete()
    await escaped.close()


async def test_a_deletion_that_is_cut_short_still_ends_the_sandbox(provider: LocalProvider) -> None:
    word = number()
    sandbox = await make(provider)
    sleeper = await begin(sandbox, f"echo up; exec sleep {word}".encode())
    await until_output(sleeper, b"up")
    await sleeper.control(Signal("WINCH"))  # for whose end the deletion waits
    deleting = asyncio.create_task(sandbox.delete())
    await asyncio.sleep(0)
    deleting.cancel()
    await asyncio.gather(deleting, return_exceptions=True)
    await until_gone(word)


async def test_a_start_that_is_given_up_leaves_no_control_group(provider: LocalProvider) -> None:
    place = cgroup.here()
    if place is None:
        pytest.skip("no control group can be made here")
    for wait in (0.0, 0.003, 0.006, 0.01):
        starting = asyncio.create_task(make(provider))
        await asyncio.sleep(wait)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
    made = f"{cgroup.PREFIX}{os.getpid()}-*"
    await provider.close()
    await asyncio.sleep(1.2)
    assert list(place.parent.glob(made)) == []


def descriptors() -> list[int]:
    return sorted(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208


@contextmanager
def descriptors_left(more: int) -> Iterator[None]:
    """So many can be opened, and all that were are closed again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = descriptors()
    filling = [os.open(os.devnull, os.O_RDONLY) for _ in range(before[-1] + 1 - len(before))]
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[-1] + 1 + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in filling:
            os.close(descriptor)
    # A thread that moves a process into a control group has its own for some milliseconds.
    until(lambda: descriptors() == before, 5.0, f"all to be closed again ({more})")


async def test_a_machine_without_descriptors_says_so_and_leaks_none(provider: LocalProvider) -> None:
    await (await make(provider)).delete()
    for more in range(6):
        with descriptors_left(more), pytest.raises(Unavailable, match="Too many open files"):
            await make(provider)
    sandbox = await make(provider)
    assert (await run(sandbox, b"exit 3"))[2] == Exited(3)
    for terminal, enough in ((None, 6), (Terminal("xterm", TerminalSize(80, 24)), 2)):
        for more in range(enough):
            with descriptors_left(more), pytest.raises(Unavailable, match="Too many open files"):
                await sandbox.start(("true",), terminal)
    assert (await run(sandbox, b"exit 3"))[2] == Exited(3)


async def test_many_sandboxes_at_once_each_with_its_own_status(provider: LocalProvider) -> None:
    async def one(status: int) -> object:
        sandbox = await make(provider)
        outcome = (await run(sandbox, f"exit {status}".encode()))[2]
        await sandbox.delete()
        return outcome

    assert await asyncio.gather(*(one(status) for status in range(20))) == [Exited(status) for status in range(20)]


async def test_one_name_is_one_sandbox_also_while_it_is_ended(provider: LocalProvider) -> None:
    async def join() -> Attachment:
        return await provider.named.join(Order(Profile(), "alice", "id", "work"), lambda text: None, lambda: noop)

    made = asyncio.Event()

    async def first() -> None:
        await join()
        made.set()
        await provider.named.end("alice", "work")

    ending, second = asyncio.create_task(first()), asyncio.create_task(join())
    await made.wait()
    joined = await asyncio.gather(second, join())
    await ending
    assert len({one.sandbox.id for one in joined}) == 1
    await provider.named.end("alice", "work")


def noop() -> None:
    """Nothing to give back."""


async def test_a_gateway_killed_at_once_leaves_nothing(local: None) -> None:
    word = number()
    killed = await gateway("/bin/sh", "-c", f"echo up; exec sleep {word}")
    assert killed.stdout is not None
    assert await killed.stdout.readline() == b"up\n"
    # Both the gateway and the program inside have the word on their command line.
    assert len(processes(word)) >= 2
    killed.send_signal(signal.SIGKILL)
    await killed.wait()
    await until_gone(word)


async def test_a_sandbox_ends_with_its_gateway_also_where_bubblewrap_does_not_notice(provider: LocalProvider) -> None:
    word = number()
    sandbox = await make(provider)
    assert isinstance(sandbox, LocalSandbox)
    await sandbox.start(("sleep", word), None)
    await asyncio.to_thread(until, lambda: processes(word), 20.0, "the program")
    # As the kernel does when the gateway is killed; but this process lives on.
    other = os.open(os.devnull, os.O_WRONLY)
    os.dup2(other, sandbox._tree.lifeline, inheritable=False)
    os.close(other)
    await until_gone(word)


async def test_files_of_a_gateway_in_another_pid_namespace_stay_and_those_of_a_dead_one_go(tmp_path: Path) -> None:
    etc, lock = make_etc()
    other = etc.rename(etc.with_name(f"{ETC_PREFIX}{2**22}-{secrets.token_hex(5)}"))  # no process here has this id
    mine, own = make_etc()
    assert (other / "passwd").is_file()
    os.close(lock)
    again, third = make_etc()
    assert not other.exists()
    assert mine.exists()
    for directory, descriptor in ((mine, own), (again, third)):
        shutil.rmtree(directory)
        os.close(descriptor)


async def test_an_end_that_is_cut_short_gives_back_the_place_of_a_named_sandbox(provider: LocalProvider) -> None:
    released = 0

    def release() -> None:
        nonlocal released
        released += 1

    await provider.named.join(Order(Profile(), "alice", "id", "work"), lambda text: None, lambda: release)
    ending = asyncio.create_task(provider.named.end("alice", "work"))
    await asyncio.sleep(0)
    ending.cancel()
    await asyncio.gather(ending, return_exceptions=True)
    assert released == 1
