"""Launchers that wait in warm sandboxes: where, how many, for how long, and what becomes of them."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from sshgate.config.model import Limits
from sshgate.errors import StartFailed
from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.parking import AGAIN, EARLY_ENDS, RENEW, Parking
from sshgate.lifecycle.records import Record
from sshgate.lifecycle.registry import Registry
from sshgate.lifecycle.requests import Answer, Create, Delete, Patch
from sshgate.sandbox import launcher
from sshgate.sandbox.interfaces import Kind, Sandbox
from sshgate.sandbox.probe import Verdict
from sshgate.sandbox.side_execs import ExecLimits, SideExecs
from sshgate.stream.interfaces import STDOUT, Control, Exited, Outcome, Process
from sshgate.stream.terminal import Terminal
from tests.unit.lifecycle_values import at, claimed, warm


class Launcher:
    """A process that prints its mark, waits for a line, and ends at ``exit``."""

    def __init__(self, pid: int) -> None:
        self.pid: int | None = None
        self.closed = False
        self._output: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        self._output.put_nowait((STDOUT, b"\x01%d\x02" % pid))

    def drop(self) -> None:
        self._output.put_nowait(None)

    async def read(self) -> tuple[int, bytes] | None:
        return await self._output.get()

    async def write(self, data: bytes) -> None:
        assert data == launcher.NOTHING, "no user byte reaches a parked launcher"
        self.drop()

    async def write_eof(self) -> None: ...

    async def control(self, control: Control) -> None: ...

    async def wait(self) -> Outcome:
        return Exited(0)

    async def close(self) -> None:
        self.closed = True


class Room:
    """A warm sandbox."""

    warm = False
    hostname = "sandbox"
    usable = True

    def __init__(self, record: Record, broken: bool) -> None:
        self.aside = SideExecs(self.start, ExecLimits(), "dev")
        self.id = self.uid = record.name
        self.broken = broken
        self.started: list[Launcher] = []
        self.left: dict[Kind, Process] = {}
        self.forgotten = False

    async def start(self, argv: Sequence[str], terminal: Terminal | None) -> Process:
        assert argv == launcher.PARKED_ARGV
        if self.broken:
            raise StartFailed("no.")
        self.started.append(Launcher(len(self.started) + 1))
        return self.started[-1]

    async def addresses(self) -> tuple[str, ...]:
        return ()

    fenced = False

    def probe(self, parked: bool) -> None: ...

    async def judge(self, verdict: Verdict) -> None: ...

    def parked(self, kind: Kind) -> Process | None:
        return self.left.pop(kind, None)

    def leave(self, kind: Kind, process: Process) -> None:
        self.left[kind] = process

    async def exists(self) -> bool:
        return self.usable

    async def forget(self) -> None:
        self.forgotten = True

    async def delete(self) -> None:
        raise AssertionError("a warm sandbox is not parking's to delete")


class Nowhere:
    """A cluster that nothing is asked of."""

    async def make(self, create: Create) -> Record:
        raise AssertionError

    async def patch(self, name: str, patch: Patch) -> Record | Answer:
        raise AssertionError

    async def look(self, name: str) -> Record | Answer:
        raise AssertionError

    async def delete(self, delete: Delete) -> Answer | None:
        raise AssertionError


class World:
    """One gateway's parking, with time that passes when told."""

    def __init__(self) -> None:
        self.time = at(0)
        self.broken = False
        self.watched = self.python = True
        self.failing = False
        self.attached = 0
        self.faults: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: self.faults.append(fault))
        self.rooms: list[Room] = []
        self.registry = Registry("me", Limits(), Nowhere(), self.now)
        self.profiles: dict[str, Sequence[Kind]] = {"default": ("terminal", "pipe")}
        self.parking = Parking(self.registry, self.profiles, self._enter, self._attach, lambda: 0.5)
        self.registry.replace([])

    def now(self) -> Now:
        return self.time

    def pass_time(self, seconds: float) -> None:
        self.time = at(self.time.mono + seconds)

    def _enter(self, record: Record) -> Room | None:
        if not self.watched or record.profile not in self.profiles:
            return None
        self.rooms.append(Room(record, self.broken))
        return self.rooms[-1]

    async def _attach(self, sandbox: Sandbox) -> Process | None:
        self.attached += 1
        if self.failing:
            raise StartFailed("no.")
        if not self.python:
            return None
        process = await sandbox.start(launcher.PARKED_ARGV, None)
        assert await process.read()
        return process

    async def look(self) -> None:
        """Look, and let everything that begins come to rest."""
        self.parking.look()
        for _ in range(50):
            await asyncio.sleep(0)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.parking.close()


async def test_a_ready_warm_sandbox_gets_one_launcher_of_each_kind_and_no_more(world: World) -> None:
    world.registry.update(warm("a"))
    for _ in range(3):
        await world.look()
    assert world.parking.count == 2
    assert len(world.rooms[0].started) == 2
    assert set(world.rooms[0].left) == {"terminal", "pipe"}


async def test_only_warm_sandboxes_of_the_own_slice_have_launchers(world: World) -> None:
    world.registry.membership.observe("other", "1")
    for uid in map(str, range(40)):
        world.registry.update(warm(uid))
    world.registry.update(claimed("x"))
    await world.look()
    assert 5 < world.parking.count / 2 < 35


async def test_a_claimed_sandbox_is_handed_out_with_what_waits_in_it(world: World) -> None:
    world.registry.update(warm("a"))
    await world.look()
    room = world.parking.take("a")
    world.registry.update(claimed("a", version="2"))
    await world.look()
    assert room is world.rooms[0]
    assert set(world.rooms[0].left) == {"terminal", "pipe"}
    assert not world.rooms[0].forgotten
    assert not any(one.closed for one in world.rooms[0].started)
    assert world.parking.count == 0


async def test_what_somebody_else_has_claimed_is_let_go(world: World) -> None:
    world.registry.update(warm("a"))
    await world.look()
    world.registry.update(claimed("a", version="2", instance="other"))
    await world.look()
    assert world.rooms[0].forgotten
    assert world.parking.take("a") is None


async def test_a_launcher_that_drops_is_replaced_at_once(world: World) -> None:
    world.registry.update(warm("a"))
    await world.look()
    world.rooms[0].started[0].drop()
    await world.look()
    await world.look()
    assert world.rooms[0].started[0].closed
    assert len(world.rooms[0].started) == 3
    assert world.parking.count == 2


async def test_launchers_are_renewed_before_a_server_cuts_them(world: World) -> None:
    world.registry.update(warm("a"))
    await world.look()
    world.pass_time(RENEW * 1.3)
    await world.look()
    await world.look()
    started = world.rooms[0].started
    assert [one.closed for one in started] == [True, True, False, False]
    assert set(world.rooms[0].left.values()) == set(started[2:])


async def test_while_launchers_are_renewed_the_next_look_is_not_due_already(world: World) -> None:
    world.registry.update(warm("a"))
    await world.look()
    world.pass_time(RENEW * 1.3)
    for _ in range(2):
        assert world.parking.look() > world.time.mono
        await asyncio.sleep(0)
        world.registry.update(warm("a", version="2", ip="10.0.0.2"))


async def test_a_sandbox_that_cannot_be_entered_is_tried_again_later_as_a_new_one(world: World) -> None:
    world.broken = True
    world.registry.update(warm("a"))
    for _ in range(5):
        await world.look()
    assert world.parking.count == 0
    assert len(world.rooms) == 2, "one attempt; then a sandbox that knows nothing of the failure"
    world.broken = world.rooms[1].broken = False
    world.pass_time(AGAIN + 1)
    await world.look()
    assert world.parking.count == 2


async def test_a_sandbox_the_watch_has_not_shown_is_entered_once_it_has(world: World) -> None:
    world.watched = False
    world.registry.update(warm("a"))
    await world.look()
    assert world.parking.count == 0
    world.watched = True
    await world.look()
    assert world.parking.count == 2


async def test_launchers_of_a_kind_that_is_configured_no_longer_are_let_go(world: World) -> None:
    world.registry.update(warm("a"))
    await world.look()
    world.profiles["default"] = ("terminal",)
    await world.look()
    assert [room.forgotten for room in world.rooms] == [True, False]
    assert set(world.rooms[1].left) == {"terminal"}
    assert world.parking.count == 1
    world.profiles["default"] = ()
    await world.look()
    assert world.rooms[1].forgotten
    assert world.parking.count == 0


async def test_a_profile_that_is_removed_during_a_failed_attempt_faults_nothing(world: World) -> None:
    world.broken = True
    world.registry.update(warm("a"))
    world.parking.look()
    world.profiles.clear()
    await world.look()
    gc.collect()
    assert world.faults == []
    assert repr(world.parking) == "<Parking 0 launchers in 0 sandboxes>"


async def test_an_exec_at_its_resident_waits_in_a_sandbox_that_can_have_one(world: World) -> None:
    world.profiles["default"] = ("terminal", "pipe", "resident")
    world.registry.update(warm("a"))
    await world.look()
    assert set(world.rooms[0].left) == {"terminal", "pipe", "resident"}
    assert world.attached == 1
    world.python = False
    world.registry.update(warm("b"))
    for _ in range(3):
        await world.look()
        world.pass_time(AGAIN + 1)
    assert set(world.rooms[1].left) == {"terminal", "pipe"}
    assert world.attached == 2, "it is tried once"


async def test_a_resident_that_ends_soon_each_time_is_not_started_for_ever(world: World) -> None:
    world.profiles["default"] = ("resident",)
    world.registry.update(warm("a"))
    for _ in range(EARLY_ENDS + 3):
        await world.look()
        for one in world.rooms[0].started:
            one.drop()
    assert world.attached == EARLY_ENDS


async def test_a_resident_that_never_starts_is_not_tried_for_ever_and_leaves_no_launcher_behind(world: World) -> None:
    world.profiles["default"] = ("terminal", "resident")
    world.failing = True
    world.registry.update(warm("a"))
    for _ in range(EARLY_ENDS + 3):
        await world.look()
        world.pass_time(AGAIN + 1)
    assert world.attached == EARLY_ENDS
    # A launcher in a sandbox that was replaced is not handed out with the new one.
    assert [room.forgotten for room in world.rooms] == [True] * EARLY_ENDS + [False]
    assert set(world.rooms[-1].left) == {"terminal"}
    assert world.parking.count == 1


async def test_a_resident_that_cannot_be_renewed_is_let_go(world: World) -> None:
    world.profiles["default"] = ("resident",)
    world.registry.update(warm("a"))
    await world.look()
    world.python = False
    world.pass_time(RENEW * 1.3)
    for _ in range(3):
        await world.look()
    assert world.attached == 2
    assert world.rooms[0].started[0].closed
    assert world.parking.count == 0
    assert world.parking.look() > world.time.mono
