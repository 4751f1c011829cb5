"""The count of a user's held sessions at a login: whom it asks, and how long it waits for an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import cast

import pytest

from sshgate.access.policy import Grant
from sshgate.config.model import Profile, ProfileLimits, SandboxPlace
from sshgate.config.values import given_name
from sshgate.hold.wishes import Wish
from sshgate.providers.local.provider import LocalProvider
from sshgate.sandbox.interfaces import NamedSandboxes, Order, Sandbox
from sshgate.sandbox.side_execs import ExecLimits, SideExecs
from sshgate.session.subsystems import held_sessions as module
from sshgate.session.subsystems.held_sessions import HeldSessions
from sshgate.stream.interfaces import Process, Request, Shell
from sshgate.stream.terminal import Terminal

PROFILE = Profile(hold="always", limits=ProfileLimits(sessions=20, sessions_per_user=50))


class Silent:
    """A sandbox in which nothing ever starts."""

    def __init__(self) -> None:
        self.aside = SideExecs(self.start, ExecLimits(), "dev")
        self.asked = 0

    def parked(self, kind: str) -> Process | None:
        return None

    def probe(self, parked: bool) -> None: ...

    async def start(self, argv: Sequence[str], terminal: Terminal | None) -> Process:
        self.asked += 1
        await asyncio.Future()
        raise AssertionError


class Named:
    """A user's sandboxes of these names, all the same one."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self.sandbox = Silent()

    def names(self, user: str) -> Collection[str]:
        return self._names

    def profile(self, user: str, name: str) -> str | None:
        return "default" if name in self._names else None

    async def find(self, order: Order) -> Sandbox | None:
        return cast(Sandbox, self.sandbox)


async def limited(named: Named) -> Wish:
    provider = LocalProvider(SandboxPlace(provider="local"))
    provider.named = cast(NamedSandboxes, named)  # type: ignore[assignment]
    held = HeldSessions(provider, lambda: {"default": PROFILE})
    return await held.limited("dev", Grant(PROFILE, "named", Request(Shell()), "work"), Wish("new"))


async def test_all_that_do_not_answer_are_waited_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COUNT_SECONDS", 0.5)
    named = Named([f"n{number}" for number in range(40)])
    async with asyncio.timeout(4):  # ten groups of four after each other take 5 s
        assert await limited(named) == Wish("new")
    assert 0 < named.sandbox.asked <= 40


async def test_sandboxes_of_tabs_are_not_asked() -> None:
    named = Named([given_name(bytes([number] * 5)) for number in range(30)])
    async with asyncio.timeout(4):
        assert await limited(named) == Wish("new")
    assert named.sandbox.asked == 0
