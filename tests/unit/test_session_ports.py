"""The gateway keeps ports open, and looks for those that nobody keeps open, whatever goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import cast

import pytest

from sshgate.access.policy import Grant
from sshgate.broker.caller import NO_KEYS, Caller
from sshgate.config.model import Config, Egress, Profile
from sshgate.errors import Unavailable
from sshgate.sandbox.interfaces import Admit, Attachment, Listed, Notice, Order, Sandbox
from sshgate.session import ports
from sshgate.session.ports import Ports
from sshgate.stream.interfaces import Request, Shell, Stream


class Broker:
    """Nobody connects."""

    async def open(self) -> None: ...

    async def serve(self, stream: Stream, caller: Caller, brought: Mapping[str, str] = NO_KEYS) -> None: ...

    def reconfigure(self, config: Config) -> None: ...

    async def close(self) -> None: ...


class Named:
    """Three sandboxes; looking for them goes wrong in two ways, and once even the list does."""

    outlast = True

    def __init__(self) -> None:
        self.listed = 0
        self.asked: list[str | None] = []

    def profile(self, user: str, name: str) -> str | None:
        return None

    def names(self, user: str) -> list[str]:
        raise AssertionError

    async def join(self, order: Order, notice: Notice, admit: Admit) -> Attachment:
        raise AssertionError

    def unattended(self) -> Sequence[tuple[str, str, str]]:
        self.listed += 1
        if self.listed == 1:
            raise RuntimeError("dictionary changed size during iteration")
        return [("ada", name, "default") for name in ("broken", "away", "fine")]

    async def find(self, order: Order) -> Sandbox | None:
        self.asked.append(order.name)
        if order.name == "broken":
            raise KeyError(order.name)
        if order.name == "away":
            raise Unavailable("the API server does not answer.")
        return None

    async def list(self, user: str | None) -> list[Listed]:
        return []

    async def end(self, user: str, name: str) -> str | None:
        return None


async def test_a_defect_ends_no_look_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "LOOK_SECONDS", 0.01)
    named = Named()
    config = Config(profiles={"default": Profile(egress=Egress(("example.com",)))})
    looking = Ports(Broker(), config, named)
    looking.start()
    try:
        async with asyncio.timeout(20):
            while named.asked.count("fine") < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    finally:
        await looking.close()
    assert named.asked[:6] == ["broken", "away", "fine"] * 2


class Shattered:
    """A sandbox that is still there although nothing starts in it, for a reason that the code does not know."""

    id = uid = "sandbox"

    def __init__(self) -> None:
        self.starts = self.looks = 0

    async def exists(self) -> bool:
        self.looks += 1
        if self.looks == 2:
            raise RuntimeError("nor can anybody look")
        return True

    async def start(self, *args: object) -> None:
        self.starts += 1
        raise KeyError("an error of no known kind")

    def parked(self, kind: str) -> None: ...

    def probe(self, parked: bool) -> None: ...


async def test_a_defect_does_not_end_a_port_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "PAUSES", (0.01,))
    profile = Profile(egress=Egress(("example.com",)))
    sandbox = Shattered()
    opened = Ports(Broker(), Config(profiles={"default": profile}))
    granted = Grant(profile, "channel", Request(Shell()))
    port = opened.open(cast(Sandbox, sandbox), "ada", granted, {})
    try:
        assert "again" in (await port.ready() or "")
        async with asyncio.timeout(20):
            while sandbox.starts < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    finally:
        await opened.close()
