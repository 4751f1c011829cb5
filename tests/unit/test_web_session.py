"""A held session's page beside a hostile or slow sandbox: what waits for it is bounded, and what it shows is of now."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from sshgate.access.identity import Identity, LoginName
from sshgate.hold.process import CONNECTED, REOPENING
from sshgate.hold.wishes import SCREEN, SCREEN_HEAD, Place
from sshgate.stream.interfaces import STDERR, STDOUT
from sshgate.stream.terminal import TerminalSize
from webshim import session as module
from webshim.credentials import Principal
from webshim.protocol import Attach
from webshim.session import WebSession
from webshim.socket import Socket

OWNER = Principal("dev", "link", "proof", "id", 0.0, 1e12)


class Wire:
    """The far end of a socket whose sandbox sends another screen whenever a frame goes out."""

    def __init__(self, session: WebSession, screens: int) -> None:
        self.session = session
        self.left = screens
        self.most = 0
        self.sent: list[str] = []
        self.socket: Any = None

    async def send_str(self, text: str) -> None:
        self.sent.append(text)
        self.most = max(self.most, len(self.socket._frames))
        if self.left:
            self.left -= 1
            offset = self.session.output.end + 1
            await self.session.write(SCREEN, SCREEN_HEAD.pack(offset, 0) + b"screen")

    async def send_bytes(self, data: bytes) -> None:
        self.sent.append(data.decode())

    async def spent(self, seconds: float) -> None:
        pass


@pytest.fixture
async def session() -> WebSession:
    identity = Identity(LoginName("dev", None, "work", None), "web-link", "proof", "127.0.0.1")
    return WebSession("id", identity, OWNER, "default", TerminalSize(), Place())


async def test_screens_without_an_end_leave_one_greeting_waiting(session: WebSession) -> None:
    socket = Socket(OWNER, "127.0.0.1", cast(Any, None), cast(Any, None))
    wire = Wire(session, 100)
    wire.socket, socket._websocket = socket, cast(Any, wire)
    start = session.attach(socket, Attach("id", "ticket", "tab", 80, 24, None, False))
    socket._greet(session, start)
    writing = asyncio.create_task(socket._write(session, start))
    await asyncio.sleep(0.2)
    writing.cancel()
    assert wire.left == 0
    assert wire.most <= 2
    assert '"offset":100' in wire.sent[-1].replace(" ", "")


async def test_a_notice_of_a_lost_exec_goes_when_it_is_opened_again(session: WebSession) -> None:
    await session.write(STDERR, REOPENING)
    assert session.notice == "the connection to the sandbox broke; your program runs on, connecting again..."
    await session.write(STDERR, REOPENING + CONNECTED)
    assert session.notice == ""
    await session.write(STDERR, CONNECTED + b"\r\nsshgate: another thing.\r\n")
    assert session.notice == "another thing."
    await session.write(STDOUT, b"x")
    assert session.output.end == 1


async def test_a_session_whose_page_goes_during_its_start_is_left_once_it_is_held(
    session: WebSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAVE_SECONDS", 0.05)
    assert await session.alive(), "its first socket is still to come"
    socket = Socket(OWNER, "127.0.0.1", cast(Any, None), cast(Any, None))
    session.attach(socket, Attach("id", "ticket", "tab", 80, 24, None, False))
    session.detach(socket)
    await asyncio.sleep(0.12)
    assert not session.left
    assert session.place is not None
    session.place.name = "1"
    await asyncio.sleep(0.12)
    assert session.left
    assert not await session.alive()


async def test_a_page_that_begins_anew_is_given_who_watches_again(session: WebSession) -> None:
    socket = Socket(OWNER, "127.0.0.1", cast(Any, None), cast(Any, None))
    wire = Wire(session, 0)
    wire.socket, socket._websocket = socket, cast(Any, wire)
    start = session.attach(socket, Attach("id", "ticket", "tab", 80, 24, None, False))
    session.watchers = ("192.0.2.7",)
    for _ in range(2):
        socket._greet(session, start)
        await socket._send_changes(session)
    assert sum("192.0.2.7" in one for one in wire.sent) == 2


async def test_who_attaches_while_a_program_floods_is_sent_all_that_is_kept(session: WebSession) -> None:
    """The page begins with the oldest bytes, which what comes next must not drop before they are sent."""
    for _ in range(40):
        await session.write(STDOUT, b"y\n" * 16384)
    socket = Socket(OWNER, "127.0.0.1", cast(Any, None), cast(Any, None))
    wire = Wire(session, 0)
    wire.socket, socket._websocket = socket, cast(Any, wire)
    start = session.attach(socket, Attach("id", "ticket", "tab", 80, 24, None, False))
    socket._greet(session, start)

    async def flood() -> None:
        for _ in range(40):
            await session.write(STDOUT, b"y\n" * 16384)

    flooding = asyncio.create_task(flood())
    await asyncio.sleep(0)
    writing = asyncio.create_task(socket._write(session, start))
    while not (writing.done() or (flooding.done() and socket._sent == session.output.end)):
        socket._acknowledge(session, socket._sent)
        await asyncio.sleep(0)
    assert not writing.done(), writing.exception()
    writing.cancel()
    output = "".join(one for one in wire.sent if not one.startswith("{"))
    assert output == "y\n" * ((session.output.end - start.offset) // 2)


async def test_a_session_that_is_ending_waits_for_no_page(session: WebSession) -> None:
    assert session.place is not None
    session.place.id = "here"
    assert session.waits_in("work", "here")
    session.end("this session was ended.")
    assert not session.waits_in("work", "here")
