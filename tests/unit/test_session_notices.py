"""The line that says what a starting sandbox is doing."""

from __future__ import annotations

import asyncio

import pytest

from sshgate.session import notices
from sshgate.session.notices import ERASE, QUIET_SECONDS, Progress
from sshgate.stream.terminal import Terminal, TerminalSize
from tests.rig.ends import TestClient


async def test_a_slow_start_shows_its_state_and_leaves_nothing() -> None:
    client = TestClient()
    progress = Progress(client, Terminal(size=TerminalSize(40, 24)))
    progress.say("pulling the image claudecode-sandbox:latest from afar")
    async with progress.show():
        async with asyncio.timeout(QUIET_SECONDS + 5):
            while not client.written:  # noqa: ASYNC110  (the client has no event for that)
                await asyncio.sleep(0.01)
        line = bytes(client.written)
    assert line.startswith(ERASE + b"sshgate: pulling the image")
    assert len(line) - len(ERASE) == 39
    assert client.written.endswith(ERASE)


async def test_a_quick_start_shows_nothing() -> None:
    client = TestClient()
    async with Progress(client, Terminal()).show():
        await asyncio.sleep(0)
    assert client.written == b""


async def test_without_a_terminal_nothing_is_ever_printed() -> None:
    client = TestClient()
    async with Progress(client, None).show():
        await asyncio.sleep(QUIET_SECONDS + 0.2)
    assert client.written == b""


async def test_a_session_that_is_cut_just_as_the_line_ends_is_cut() -> None:
    went_on = False

    async def session() -> None:
        nonlocal went_on
        async with Progress(TestClient(), Terminal()).show():
            pass
        went_on = True

    running = asyncio.create_task(session())
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not went_on


async def test_a_client_that_does_not_read_does_not_hold_up_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "WRITE_SECONDS", 0.05)
    client = TestClient()
    client.stuck = True
    async with asyncio.timeout(5), Progress(client, Terminal()).show():
        await asyncio.sleep(QUIET_SECONDS + 0.1)
