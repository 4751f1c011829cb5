"""Whether a gateway lives, asked past the API server; and renewals that do not wait for the gateway's event loop."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from sshgate.providers.kubernetes.lease_thread import TICK, LeaseRenewer, LoopWatchdog
from sshgate.providers.kubernetes.leases import Leases
from sshgate.providers.kubernetes.liveness import (
    ADDRESS_VARIABLE,
    ASK_SECONDS,
    LivenessEndpoint,
    ProbeResult,
    answering,
    free_name,
    machine,
    probe,
)
from sshgate.providers.kubernetes.podspec import Owner
from tests.hostile.polling import until
from tests.unit.apiserver import connected, serve

OWNER = Owner("gateway", "life")
# Another gateway of this machine, which answers until its stdin ends.
OTHER = """
import asyncio, sys, msgspec
from sshgate.providers.kubernetes.liveness import answering
async def main():
    async with answering(lambda: True) as door:
        print(msgspec.json.encode(door).decode(), flush=True)
        await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""


async def asked(door: LivenessEndpoint) -> ProbeResult:
    return await asyncio.to_thread(probe, door, 0.5)


async def test_a_gateway_of_this_machine_answers_and_says_whether_its_loop_turns() -> None:
    turns = True
    async with answering(lambda: turns) as door:
        assert door.machine == machine()
        assert door.address is None
        assert await asked(door) is ProbeResult.ALIVE
        turns = False
        assert await asked(door) is ProbeResult.STANDING
        assert await asked(LivenessEndpoint("another key", door.machine)) is ProbeResult.GONE
    assert await asked(door) is ProbeResult.GONE


async def test_a_gateway_in_a_pod_answers_at_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADDRESS_VARIABLE, "127.0.0.1")
    async with answering(lambda: True) as door:
        from_elsewhere = msgspec.structs.replace(door, machine="another/1")
        assert await asked(from_elsewhere) is ProbeResult.ALIVE
        # Who took its address and port is not it.
        assert await asked(msgspec.structs.replace(from_elsewhere, key="another key")) is ProbeResult.GONE
        # Two on one address: the second one has no port there, and says so.
        async with answering(lambda: True) as other:
            assert other.address is None
    # Refused: by nobody who listens, or by a network policy that rejects. They look the same.
    assert await asked(from_elsewhere) is ProbeResult.UNKNOWN
    assert await asked(door) is ProbeResult.GONE


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"[:31]])
async def test_what_is_no_answer_proves_nothing(answer: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert await asked(LivenessEndpoint("key", "another/1", "127.0.0.1", port)) is ProbeResult.UNKNOWN
    for unreachable in (
        LivenessEndpoint("key"),
        LivenessEndpoint("key", "another/1"),
        LivenessEndpoint("key", None, "not an address", 70_000),
    ):
        assert await asked(unreachable) is ProbeResult.UNKNOWN


async def test_who_connects_and_says_nothing_keeps_nobody_from_asking() -> None:
    async with answering(lambda: True) as door:
        address = "\0sshgate-" + hashlib.sha256(door.key.encode()).hexdigest()[:32]
        silent = [socket.socket(socket.AF_UNIX) for _ in range(20)]
        for one in silent:
            one.connect(address)
        await asyncio.sleep(ASK_SECONDS + 0.2)
        assert await asked(door) is ProbeResult.ALIVE
        for one in silent:
            one.close()


async def test_a_stopped_process_does_not_answer_and_a_killed_one_is_gone() -> None:
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OTHER, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert other.stdout is not None
    try:
        door = msgspec.json.decode(await other.stdout.readline(), type=LivenessEndpoint)
        assert await asked(door) is ProbeResult.ALIVE
        other.send_signal(signal.SIGSTOP)
        assert await asked(door) is ProbeResult.UNKNOWN
        other.send_signal(signal.SIGCONT)
        assert await asked(door) is ProbeResult.ALIVE
    finally:
        other.kill()
        await other.communicate()
    assert await asked(door) is ProbeResult.GONE


def test_a_name_is_had_by_one_gateway_of_a_machine_at_a_time() -> None:
    name, first = free_name("test", "gate")
    assert first is not None
    second_name, second = free_name("test", "gate")
    elsewhere_name, elsewhere = free_name("other", "gate")
    assert (name, second_name, elsewhere_name) == ("gate", "gate-2", "gate")
    first.close()
    again, third = free_name("test", "gate")
    assert again == "gate"
    for one in (second, elsewhere, third):
        assert one is not None
        one.close()


def test_time_in_which_the_whole_process_was_stopped_is_not_the_loop_standing_still() -> None:
    turns = LoopWatchdog(hung=3.0)
    turns.look(1000.0)
    assert turns()
    turns.look(TICK)
    assert not turns()
    turns.count += 1
    turns.look(TICK)
    assert turns()


def stand_still(seconds: float) -> None:
    """As a loop does that has too much to do."""
    time.sleep(seconds)


@pytest.mark.timeout(60)
async def test_a_gateway_that_is_busy_goes_on_renewing_and_one_that_hangs_does_not(tmp_path: Path) -> None:
    """The server has a loop of its own; ours does nothing at all for longer than the time between renewals."""
    renewed: list[str] = []
    ready, over = asyncio.Event(), asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "PATCH":
            renewed.append(request.path)
        return web.json_response({})

    places: list[Any] = []

    async def server() -> None:
        async with serve(answer, tmp_path) as served:
            places.append((served, asyncio.get_running_loop()))
            loop.call_soon_threadsafe(ready.set)
            await until(over.is_set, 50)

    loop = asyncio.get_running_loop()
    serving = asyncio.create_task(asyncio.to_thread(asyncio.run, server()))
    await ready.wait()
    async with connected(places[0][0]) as api:
        pulse = LeaseRenewer(api, OWNER, hung=7.0)
        door = await pulse.start()
        await Leases(api, OWNER).announce(door)
        stand_still(5.8)
        assert len(renewed) == 1
        assert probe(door) is ProbeResult.ALIVE
        stand_still(5.2)
        assert len(renewed) == 1
        assert probe(door) is ProbeResult.STANDING
        await until(lambda: probe(door) is ProbeResult.ALIVE, 5)
        await until(lambda: len(renewed) == 2, 5)
        await pulse.close()
        assert probe(door) is ProbeResult.GONE
    over.set()
    await serving
