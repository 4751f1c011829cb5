"""What an API server sends on exec sockets, as fast as it can be sent: the event loop goes on, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sshgate.config.model import SandboxPlace
from sshgate.providers.kubernetes.api.client import ApiServer
from sshgate.providers.kubernetes.exec.process import ExecProcess
from sshgate.sandbox.sftp_pace import Paced
from sshgate.stream import turns
from sshgate.stream.interfaces import Exited
from tests.fairness.attack import ECHO_LIMIT, MEMORY_LIMIT, ROOT, Most
from tests.fairness.flood_exec import KINDS
from tests.fairness.typist import without_processor
from tests.rig.processes import resident
from tests.unit.apiserver import write_kubeconfig
from tests.unit.exec_server import FakePodContext

SOCKETS, MIB = 4, 1.0
# What a client does with each chunk.
CLIENT_SECONDS = 0.00001


@pytest.fixture
def server(kind: str, tmp_path: Path) -> Iterator[SandboxPlace]:
    """The way to an API server that floods."""
    argv = [sys.executable, "-m", "tests.fairness.flood_exec", kind, str(MIB)]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", f"http://127.0.0.1:{int(process.stdout.readline())}")
        yield SandboxPlace(kubeconfig=kubeconfig, namespace="test", gateway="test")
        process.kill()


async def slowest_turn(until: asyncio.Event) -> float:
    """The longest that the loop kept a timer waiting, but for the time without a processor."""
    slowest = 0.0
    while not until.is_set():
        waited, began = without_processor(os.getpid()), time.monotonic()
        await asyncio.sleep(0.002)
        slowest = max(slowest, time.monotonic() - began - (without_processor(os.getpid()) - waited))
    return slowest


async def output_size(client: ApiServer) -> int:
    """Run a program that floods to its end, as if it were an sftp server; how much it has said."""
    socket = await client.websocket(client.path("pods", "x", "exec"), "command=true")
    program = ExecProcess(socket, False, FakePodContext(True))
    program.pid = 1
    process = Paced(program)
    size, client_budget = 0, turns.budget()
    while (chunk := await process.read()) is not None:
        size += len(chunk[1])
        await client_budget.charge_and_wait(CLIENT_SECONDS)
    assert await process.wait() == Exited(0)
    await process.close()
    return size


async def flooded(server: SandboxPlace) -> tuple[float, int, list[int]]:
    """Run some of these programs: the slowest turn, what memory has grown by, and how much each has said."""
    client, over = ApiServer(server), asyncio.Event()
    await client.open()
    try:
        before, most = resident(os.getpid()), Most(os.getpid())
        watching = asyncio.create_task(slowest_turn(over))
        sizes = await asyncio.gather(*(output_size(client) for _ in range(SOCKETS)))
        over.set()
        return await watching, most.end() - before, sizes
    finally:
        await client.close()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_api_servers_flood_of(kind: str, loop: str, server: SandboxPlace) -> None:
    factory = pytest.importorskip("uvloop").new_event_loop if loop == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        slowest, grown, sizes = runner.run(flooded(server))
    print(slowest, grown)
    # Bytes of output in each turn of the frames.
    each = {"bytes of output": 1, "both outputs": 2, "fragments": 1, "answers of an sftp server": 117}.get(kind, 0)
    assert sizes == [int(MIB * (1 << 20)) // len(KINDS[kind]) * each] * SOCKETS
    # A key and its echo take five turns.
    assert slowest <= ECHO_LIMIT / 5
    assert grown <= MEMORY_LIMIT
