"""Which sandbox a channel gets, how often one is made, and when it goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Literal, cast

import pytest

from sshgate.access.limits import Admission
from sshgate.access.policy import Grant
from sshgate.config.model import Limits, Profile, ProfileLimits, SandboxPlace
from sshgate.errors import LimitReached
from sshgate.providers.local.provider import LocalProvider
from sshgate.sandbox.interfaces import Admit, Attachment, NamedSandboxes, Notice, Order, Sandbox
from sshgate.sandbox.probe import Verdict
from sshgate.sandbox.side_execs import ExecLimits, SideExecs
from sshgate.session.claims import Claims, PendingSandbox
from sshgate.stream.interfaces import STDOUT, Exec, Exited, Process, Request, Shell
from sshgate.stream.terminal import Terminal
from sshgate.telemetry.events import Events, to_log
from tests.rig.ends import TestProcess


class Room:
    """A sandbox that says whether something was left running in it."""

    warm = True
    hostname = "sandbox"

    def __init__(self, number: int, owner: Rooms) -> None:
        self.aside = SideExecs(self.start, ExecLimits(), "dev")
        self.id = self.uid = f"room{number}"
        self.usable = True
        self.busy = False
        self.looks = 0
        self._owner = owner

    async def addresses(self) -> tuple[str, ...]:
        return ()

    def probe(self, parked: bool) -> None: ...

    async def judge(self, verdict: Verdict) -> None: ...

    def parked(self, kind: str) -> Process | None:
        return None

    async def exists(self) -> bool:
        return self.usable

    async def forget(self) -> None:
        pass

    async def start(self, argv: Sequence[str], terminal: Terminal | None) -> Process:
        self.looks += 1
        process = TestProcess()
        process.output.put(b"busy\n.\n" if self.busy else b".\n", STDOUT)
        process.end(Exited(0))
        return process

    async def delete(self) -> None:
        self.usable = False
        self._owner.there.discard(self)


class Rooms(LocalProvider):
    """Makes rooms, no more at a time than ``most``."""

    def __init__(self, most: int = 10) -> None:
        super().__init__(SandboxPlace(provider="local"))
        self.there: set[Room] = set()
        self.made = 0
        self.most = most
        self.named = cast(NamedSandboxes, Named(self))  # type: ignore[assignment]

    async def create(self, order: Order, notice: Notice) -> Sandbox:  # type: ignore[override]
        if len(self.there) >= self.most:
            raise LimitReached("all are in use")
        self.made += 1
        room = Room(self.made, self)
        await asyncio.sleep(0)
        notice("starting")
        self.there.add(room)
        return room


class Named:
    """One named sandbox, made when it is first joined; it counts as the others do."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self.made = True
        self.ended = 0

    async def join(self, order: Order, notice: Notice, admit: Admit) -> Attachment:
        admit()
        return Attachment(
            await self._rooms.create(order, notice), made=self.made, left=100.0, leaving=lambda returns: None
        )

    async def end(self, user: str, name: str) -> str | None:
        self.ended += 1
        self._rooms.there.clear()
        return None


def granted(
    name: str | None = None, limits: ProfileLimits | None = None, scope: Literal["channel", "connection"] = "connection"
) -> Grant:
    profile = Profile(warm=1, limits=limits or ProfileLimits(), scope=scope)
    return Grant(profile, "named" if name else profile.scope, Request(Shell()), name)


@asynccontextmanager
async def claims(rooms: Rooms, admission: Admission | None = None) -> AsyncIterator[Claims]:
    made = Claims(rooms, admission, "dev", Events(to_log).context())
    yield made
    await made.close()


async def get(pending: PendingSandbox) -> Room:
    return cast(Room, await pending.get())


async def test_the_channels_of_a_connection_share_one_that_outlives_each_of_them() -> None:
    rooms = Rooms()
    async with claims(rooms) as mine:
        async with mine.sandbox(granted(), "s1", print) as one:
            first = await get(one)
            assert one.source == "warm"
        async with mine.sandbox(granted(), "s2", print) as two, mine.sandbox(granted(), "s3", print) as three:
            assert await get(two) is await get(three) is first
            assert two.source == "joined"
        assert first.usable
    assert not rooms.there


async def test_a_fresh_one_for_each_channel_is_still_to_be_had() -> None:
    rooms = Rooms()
    async with claims(rooms) as mine:
        for session in ("s1", "s2"):
            async with mine.sandbox(granted(scope="channel"), session, print) as own:
                await own.get()
            assert not rooms.there
    assert rooms.made == 2


async def test_nobody_comes_back_and_it_goes_before_the_connection() -> None:
    rooms, limits = Rooms(), ProfileLimits(detached=0.1)
    async with claims(rooms) as mine:
        async with mine.sandbox(granted(limits=limits), "s1", print) as one:
            await one.get()
            await asyncio.sleep(0.2)
            assert rooms.there, "somebody is in it"
        async with asyncio.timeout(5):
            while rooms.there:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        async with mine.sandbox(granted(limits=limits), "s2", print) as again:
            assert (await get(again)).id == "room2"


async def test_what_was_left_running_keeps_it() -> None:
    rooms, limits = Rooms(), ProfileLimits(detached=0.05)
    async with claims(rooms) as mine:
        async with mine.sandbox(granted(limits=limits), "s1", print) as one:
            room = await get(one)
            room.busy = True
        async with asyncio.timeout(5):
            while room.looks < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert room.usable
        room.busy = False
        async with asyncio.timeout(5):
            while rooms.there:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_one_that_has_ended_is_replaced_for_the_next_channel() -> None:
    rooms = Rooms()
    admission = Admission(Limits(sandboxes_per_user=1))
    async with claims(rooms, admission) as mine, mine.sandbox(granted(), "s1", print) as one:
        first = await get(one)
        await first.delete()
        async with mine.sandbox(granted(), "s2", print) as two:
            assert (await get(two)).id == "room2"
            assert two.source == "warm"
        assert admission.sandboxes == 1


async def test_a_named_one_that_is_over_goes_with_the_last_channel_that_is_in_it() -> None:
    """Also if that one is not in it yet; another connection's channels do not keep it."""
    rooms = Rooms()
    async with claims(rooms) as mine:
        async with mine.sandbox(granted("work"), "s1", print) as one:
            await one.get()
            async with mine.sandbox(granted("work"), "s2", print) as two:
                two.over = True
            assert rooms.there
            one.over = True
        assert not rooms.there
    async with claims(rooms) as mine, claims(rooms) as others:
        async with mine.sandbox(granted("work"), "s3", print) as three:
            await three.get()
            async with others.sandbox(granted("work"), "s4", print) as four:
                four.over = True
        assert not rooms.there


async def test_a_transfer_keeps_nothing_that_is_over_nor_does_a_shell_that_never_starts() -> None:
    rooms = Rooms()
    transfers = replace(granted("work"), request=Request(Exec(b"tar")))
    async with claims(rooms) as mine, mine.sandbox(transfers, "s1", print) as transfer:
        await transfer.get()
        async with mine.sandbox(granted("work"), "s2", print) as shell:
            shell.over = True
        assert not rooms.there
    async with claims(rooms) as mine:
        async with mine.sandbox(granted("work"), "s3", print) as late:
            late.over_if_made = True
            async with mine.sandbox(granted("work"), "s4", print) as first:
                await first.get()
                first.over = True
            assert rooms.there
        assert not rooms.there
        assert not mine._inside
        assert not mine._over


async def test_what_remains_of_its_lifetime_is_what_a_later_channel_gets() -> None:
    async with claims(Rooms()) as mine, mine.sandbox(granted(), "s1", print) as one:
        await one.get()
        assert one.remaining_lifetime is not None
        assert 0 < one.remaining_lifetime < granted().profile.limits.max_lifetime


@pytest.mark.parametrize("grant", [granted("work"), granted(limits=ProfileLimits(idle=1.0))], ids=["named", "other"])
async def test_a_wrong_speculative_claim_is_gone_before_another_is_made(grant: Grant) -> None:
    rooms = Rooms(most=1)
    async with claims(rooms) as mine:
        mine.start_speculative_claim(granted(), "s1")
        await asyncio.sleep(0)
        assert rooms.made == 1
        async with mine.sandbox(grant, "s1", print, mine.take_speculative_claim()) as pending:
            assert (await get(pending)).id == "room2"
            assert len(rooms.there) == 1


async def test_a_speculative_claim_is_cancelled_at_once_if_a_sandbox_is_shared() -> None:
    rooms = Rooms(most=2)
    async with claims(rooms) as mine:
        mine.start_speculative_claim(granted(), "s2")
        speculative = mine.take_speculative_claim()
        async with (
            mine.sandbox(granted(), "s1", print) as one,
            mine.sandbox(granted(), "s2", print, speculative) as two,
        ):
            assert await get(one) is await get(two)
            await asyncio.sleep(0.01)
            assert len(rooms.there) == 1
            mine.start_speculative_claim(granted(), "s3")
            assert mine.take_speculative_claim() is None, "one is there"


async def test_each_channel_uses_its_own_claim_and_hears_of_its_own_sandbox() -> None:
    """Two channels come before either has its sandbox: the one that makes it gets the progress."""
    rooms = Rooms()
    heard: list[str] = []
    async with claims(rooms) as mine:
        mine.start_speculative_claim(granted(), "s1")
        await asyncio.sleep(0)
        claim = mine.take_speculative_claim()
        async with (
            mine.sandbox(granted(), "s1", heard.append, claim) as one,
            mine.sandbox(granted(), "s2", print) as two,
        ):
            first = await get(one)
            assert await get(two) is first
            assert (one.source, two.source) == ("warm", "joined")
            assert rooms.made == 1
    assert heard == ["starting"]


async def test_one_that_goes_with_who_has_made_it_stays_for_others() -> None:
    rooms = Rooms()
    named = cast(Named, rooms.named)
    async with claims(rooms) as mine:
        async with mine.sandbox(granted("work"), "s1", print) as pending:
            pending.over_if_made = True  # the client left before it was known whose it is
        assert named.ended == 0
        for named.made, ended in ((False, 0), (True, 1)):
            async with mine.sandbox(granted("work"), "s2", print) as pending:
                pending.over_if_made = True
                await get(pending)
            assert named.ended == ended
