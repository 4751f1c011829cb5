"""What the gateway does for nsenter, whose program it watches, and how a named sandbox of this machine ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sshgate.config.model import Profile
from sshgate.providers.local.named import _Kept
from sshgate.providers.local.process import LocalProcess
from sshgate.sandbox.interfaces import Order
from sshgate.stream.interfaces import STDOUT


def start() -> subprocess.Popen[bytes]:
    """A stopped process."""
    child = subprocess.Popen(["sleep", "100"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    return child


def state(pid: int) -> str:
    """The state of a process, as in ps: T is stopped."""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1].decode()


@pytest.mark.parametrize("readable", [True, False], ids=["its program has ended", "nobody knows"])
async def test_a_stopped_nsenter_is_continued_only_if_its_program_has_ended(
    readable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = start()
    assert child.stdin is not None
    assert child.stdout is not None
    stdin, stdout = os.dup(child.stdin.fileno()), os.dup(child.stdout.fileno())
    ended = asyncio.Event()
    process = LocalProcess(
        child.pid, None, stdin, {stdout: STDOUT}, False, lambda pid, name, foreground: None, lambda _: ended.set()
    )
    try:
        if not readable:

            def refuse(path: Path, *args: Any) -> str:
                raise PermissionError

            monkeypatch.setattr(Path, "read_text", refuse)
        process.pid = 1
        await asyncio.sleep(0.3)
        assert state(child.pid) == ("S" if readable else "T")
    finally:
        child.send_signal(signal.SIGKILL)
        await ended.wait()
        await process.close()
        child.stdin.close()
        child.stdout.close()
        child.returncode = 0  # reaped by the process


class Doomed:
    """A sandbox that can be deleted."""

    deleted = False

    async def delete(self) -> None:
        self.deleted = True


async def test_a_named_sandbox_is_deleted_although_its_end_is_cancelled() -> None:
    sandbox, released = Doomed(), asyncio.Event()
    kept = _Kept(Order(Profile(), "ada", "session", "work"), sandbox, released.set)  # type: ignore[arg-type]

    async def slow() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(0.05)

    kept.task = asyncio.create_task(slow())
    await asyncio.sleep(0)
    ending = asyncio.create_task(kept.end())
    await asyncio.sleep(0.01)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert sandbox.deleted
    assert released.is_set()
