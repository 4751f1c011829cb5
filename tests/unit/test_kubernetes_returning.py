"""Execs that wait for who has just left a held session: how many, for how long, and whose they are then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sshgate.config.model import Profile
from sshgate.errors import Unavailable
from sshgate.hold.line import Line
from sshgate.providers.kubernetes import returning
from sshgate.providers.kubernetes.returning import MOST, MOST_BY_USER, Returning
from sshgate.sandbox.interfaces import Sandbox
from sshgate.stream.interfaces import STDOUT
from tests.hostile.polling import until
from tests.rig.ends import TestProcess

NEXT = Profile(name="next")


class Left:
    """A sandbox that was left, and what waits in it."""

    def __init__(self, number: int, user: str = "alice") -> None:
        self.id, self.uid, self.usable, self.profile = f"pod-{number}", f"uid-{number}", True, Profile()
        self.aside = SimpleNamespace(user=user)
        self.waits: list[object] = []
        self.forgotten = 0
        self.attended = True

    def unattend(self) -> None:
        self.attended = False

    def leave(self, kind: str, process: object) -> None:
        assert kind == "kept"
        self.waits.append(process)

    @property
    def kept(self) -> object:
        return self.waits[-1] if self.waits else None

    async def let_go(self) -> None:
        self.forgotten += 1
        self.waits.clear()

    def abandon(self) -> None:
        self.usable = False

    def observe(self, pod: object, gone: bool) -> None:
        self.usable = not gone


class World:
    def __init__(self) -> None:
        self.begun = self.attached = 0
        self.refuses = False
        self.may_attach = asyncio.Event()
        self.may_attach.set()
        self.returning = Returning(self.attach)

    async def attach(self, sandbox: object) -> Any:
        self.begun += 1
        await self.may_attach.wait()
        if self.refuses:
            raise Unavailable("the API server does not answer.")
        self.attached += 1
        return TestProcess()

    def keep(self, left: Left) -> None:
        self.returning.keep(cast(Any, left))

    async def take(self, left: Left) -> Any:
        return await self.returning.take(left.id, left.uid, NEXT)


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(returning, "PAUSE", 0.02)
    made = World()
    yield made
    await made.returning.close()


async def test_who_comes_back_gets_what_waits_and_who_comes_at_once_causes_none(world: World) -> None:
    one, at_once = Left(1), Left(2)
    for left in (one, at_once):
        world.keep(left)
    assert await world.take(at_once) is at_once
    await asyncio.sleep(0.1)
    assert await world.take(one) is one
    assert (len(one.waits), len(at_once.waits), world.attached, one.forgotten) == (1, 0, 1, 0)
    assert one.profile is NEXT
    assert not one.attended
    assert await world.take(one) is None


async def test_what_waited_and_was_not_used_waits_on(world: World) -> None:
    left = Left(1)
    world.keep(left)
    await until(lambda: left.waits)
    assert await world.take(left) is left
    world.keep(left)
    await asyncio.sleep(0.1)
    assert await world.take(left) is left
    assert (len(left.waits), world.begun, left.forgotten) == (1, 1, 0)


async def test_who_comes_while_the_exec_is_being_started_gets_that_one(world: World) -> None:
    left = Left(1)
    world.may_attach.clear()
    world.keep(left)
    await until(lambda: world.begun == 1)
    coming = asyncio.create_task(world.take(left))
    given_up = asyncio.create_task(world.take(left))
    await asyncio.sleep(0)
    given_up.cancel()
    world.may_attach.set()
    assert await coming is left
    assert (len(left.waits), world.begun, left.forgotten) == (1, 1, 0)


async def test_who_comes_does_not_wait_long_for_an_exec_that_does_not_start(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(returning, "START_SECONDS", 0.05)
    slow, without = Left(1), Left(2)
    world.may_attach.clear()
    for left in (slow, without):
        world.keep(left)
    await until(lambda: world.begun == 2)
    assert await world.take(slow) is slow
    # Where none can be started, there is nothing to wait for, and nothing is kept.
    world.refuses = True
    world.may_attach.set()
    assert await world.take(without) is None
    assert (slow.waits, without.waits, without.forgotten) == ([], [], 1)


async def test_who_comes_does_not_wait_for_an_exec_in_a_sandbox_that_goes_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(returning, "START_SECONDS", 60.0)
    left = Left(1)
    world.may_attach.clear()
    world.keep(left)
    await until(lambda: world.begun == 1)
    coming = asyncio.create_task(world.take(left))
    await asyncio.sleep(0)
    world.returning.observe(cast(Any, SimpleNamespace(metadata=SimpleNamespace(name=left.id))), gone=True)
    async with asyncio.timeout(20):
        assert await coming is None
    assert left.waits == []


async def test_one_that_ends_or_speaks_unasked_is_kept_no_longer(world: World) -> None:
    ended, speaks = Left(1), Left(2)
    for left in (ended, speaks):
        world.keep(left)
    await until(lambda: ended.waits and speaks.waits)
    cast(TestProcess, ended.waits[0]).output.put_eof()
    cast(TestProcess, speaks.waits[0]).output.put(b"a stranger", STDOUT)
    await until(lambda: ended.forgotten and speaks.forgotten)
    assert [await world.take(left) for left in (ended, speaks)] == [None, None]


async def test_what_waited_is_read_by_the_login_that_took_it(world: World) -> None:
    left = Left(1)
    world.keep(left)
    await until(lambda: left.waits)
    await asyncio.sleep(0)
    process = cast(TestProcess, left.waits[0])
    asyncio.get_running_loop().call_later(0.05, process.output.put, b"answer", STDOUT)
    assert await world.take(left) is left
    async with asyncio.timeout(5):
        assert await process.read() == (STDOUT, b"answer")


async def test_a_user_and_a_gateway_have_so_many_and_the_oldest_goes(world: World) -> None:
    mine = [Left(number) for number in range(MOST_BY_USER + 1)]
    for left in mine:
        world.keep(left)
    await asyncio.sleep(0.1)
    assert [left.forgotten for left in mine] == [1] + [0] * MOST_BY_USER
    others = [Left(100 + number, f"user-{number}") for number in range(MOST)]
    for left in others:
        world.keep(left)
    await asyncio.sleep(0.1)
    assert [left.forgotten for left in mine] == [1] * len(mine)
    assert sum(left.forgotten for left in others) == 0
    assert await world.take(mine[-1]) is None
    assert await world.take(others[0]) is others[0]


async def test_none_waits_longer_than_its_time_or_in_a_pod_that_is_gone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(returning, "KEPT_SECONDS", 0.1)
    late, gone, another, none = Left(1), Left(2), Left(3), Left(4)
    for left in (late, gone, another):
        world.keep(left)
    world.returning.observe(cast(Any, SimpleNamespace(metadata=SimpleNamespace(name=gone.id))), gone=True)
    await asyncio.sleep(0)
    assert await world.returning.take(another.id, "uid-of-the-next-pod", NEXT) is None
    world.refuses = True
    world.keep(none)
    await asyncio.sleep(0.3)
    assert [left.forgotten for left in (late, gone, another, none)] == [1, 1, 1, 1]
    assert repr(world.returning) == "<Returning 0 sandboxes>"


async def test_it_is_closed_where_the_login_that_took_it_is_given_up_before_it_answers() -> None:
    class Silent(TestProcess):
        async def read(self) -> tuple[int, bytes] | None:
            asking.set()
            return await super().read()

    asking, silent = asyncio.Event(), Silent()
    sandbox = SimpleNamespace(parked={"kept": silent}.get)
    coming = asyncio.create_task(Line.open(cast(Sandbox, sandbox)))
    await asking.wait()
    coming.cancel()
    await asyncio.wait((coming,))
    assert coming.cancelled()
    assert silent.closed
