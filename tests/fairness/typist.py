"""Somebody else, who types: how long each key takes to come back, whatever others send.

What counts is the gateway's event loop, on a machine that may be busy. So the time for which the processes on the
way of the key (client, gateway, program) were ready to run and had no processor is taken off; Linux counts it. What
floods runs in a process of its own at a lower priority.
"""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import asyncssh
from asyncssh.packet import String

from sshgate.ssh._asyncssh.connection import MSG_PING, MSG_PONG
from tests.hostile.peer import peer
from tests.rig.gateway import Gateway
from tests.rig.processes import descendants
from tests.rig.ssh import Ssh

ECHO = "stty raw -echo; echo ready; exec cat"
PAUSE = 0.02
# Of one echo; what takes longer is as good as never.
LIMIT = 30.0


class Typist:
    """A terminal in which somebody types."""

    def __init__(self, gateway: Gateway, ssh: Ssh) -> None:
        self.gateway = gateway
        before = descendants(gateway.pid)
        self._client = subprocess.Popen(
            ssh.argv(ECHO, options=("-tt",)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        assert self._client.stdout is not None
        output = b""
        while b"ready\n" not in output:
            output += self._client.stdout.read(64) or self._ended()
        new = [one.pid for one in descendants(gateway.pid) - before]
        self._chain = [os.getpid(), gateway.pid, self._client.pid, *new]

    def _ended(self) -> bytes:
        raise AssertionError(f"the typist's client has ended: {self.gateway.log()[-2000:]}")

    def __enter__(self) -> Typist:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._client.kill()
        self._client.communicate()

    def type(self) -> float:
        """Press a key; seconds until it came back."""
        assert self._client.stdin is not None
        assert self._client.stdout is not None
        waited, began = self._waited(), time.monotonic()
        self._client.stdin.write(b"x")
        ready, _, _ = select.select([self._client.stdout], [], [], LIMIT)
        assert ready, f"no echo within {LIMIT:g} s"
        self._client.stdout.read(1) or self._ended()
        return time.monotonic() - began - (self._waited() - waited)

    def type_while(self, goes_on: Callable[[], bool], least: int = 20) -> list[float]:
        """Type until it is over; what each key took."""
        echoes: list[float] = []
        while goes_on() or len(echoes) < least:
            echoes.append(self.type())
            time.sleep(PAUSE)
        return echoes

    def _waited(self) -> float:
        """Seconds for which the key's way had no processor so far."""
        return sum(map(without_processor, self._chain))


class Pinger:
    """Somebody who sends pings of SSH (OpenSSH's PROTOCOL 1.9): the gateway answers them by itself, without a sandbox.

    For floods that keep the cluster busy, through which a key's echo would have to come.
    """

    def __init__(self, gateway: Gateway, ssh: Ssh) -> None:
        self.gateway = gateway
        self._ssh = ssh
        self._chain = [os.getpid(), gateway.pid]

    def type_while(self, goes_on: Callable[[], bool], least: int = 20) -> list[float]:
        """Ping until it is over; what each answer took, without the time in which there was no processor."""
        return asyncio.run(self._ping_while(goes_on, least))

    async def _ping_while(self, goes_on: Callable[[], bool], least: int) -> list[float]:
        answers: list[float] = []
        async with peer(self.gateway.port) as client:
            await client.log_in(asyncssh.read_private_key(self._ssh.key), self._ssh.user.encode())
            while goes_on() or len(answers) < least:
                waited, began = sum(map(without_processor, self._chain)), time.monotonic()
                client.say(MSG_PING, String(b"x"))
                await client.hear(MSG_PONG)
                answers.append(time.monotonic() - began - (sum(map(without_processor, self._chain)) - waited))
                await asyncio.sleep(PAUSE)
        return answers


def without_processor(pid: int) -> float:
    """Seconds for which a process was ready to run and had none, so far."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


def processor_seconds(pid: int) -> float:
    """What a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
