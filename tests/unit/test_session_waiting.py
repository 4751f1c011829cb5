"""Waiting for a sandbox: the client may leave, press Ctrl-C, or type ahead."""

from __future__ import annotations

import asyncio

import pytest

from sshgate.errors import Cancelled, StartFailed
from sshgate.session.waiting import TYPED_AHEAD, wait_for_sandbox
from tests.rig.ends import TestClient


async def test_the_result_comes_with_what_was_typed_ahead() -> None:
    client = TestClient()
    ready = asyncio.Event()

    async def work() -> str:
        await ready.wait()
        return "sandbox"

    waiting = asyncio.create_task(wait_for_sandbox(client, work(), interruptible=True))
    client.input.put(b"ls")
    client.input.put(b"\n")
    while client.input.size:  # noqa: ASYNC110  (the client has no event for that)
        await asyncio.sleep(0)
    ready.set()
    waited = await waiting
    assert waited is not None
    assert (waited.result, waited.buffered_input, waited.eof) == ("sandbox", b"ls\n", False)


async def test_a_client_that_leaves_cancels_the_work_and_waits_for_its_clean_up() -> None:
    client = TestClient()
    cleaned = []

    async def work() -> None:
        try:
            await asyncio.Future()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    waiting = asyncio.create_task(wait_for_sandbox(client, work(), interruptible=False))
    await asyncio.sleep(0)
    client.leave()
    assert await waiting is None
    assert cleaned == [True]


async def test_ctrl_c_ends_the_wait_on_a_terminal_only() -> None:
    client = TestClient()
    client.input.put(b"abc\x03")
    with pytest.raises(Cancelled):
        await wait_for_sandbox(client, asyncio.sleep(60), interruptible=True)
    pipe = TestClient()
    pipe.input.put(b"abc\x03")
    waited = await wait_for_sandbox(pipe, asyncio.sleep(0.01, "done"), interruptible=False)
    assert waited is not None
    assert waited.result == "done"
    assert pipe.input.size == 4


async def test_what_the_work_raises_is_raised() -> None:
    async def work() -> None:
        raise StartFailed("no node fits.")

    with pytest.raises(StartFailed, match="no node fits"):
        await wait_for_sandbox(TestClient(), work(), interruptible=True)


async def test_typing_ahead_is_bounded_and_its_end_is_kept() -> None:
    client = TestClient()
    for _ in range(100):
        client.input.put(b"x" * 1024)
    waited = await wait_for_sandbox(client, asyncio.sleep(0.05), interruptible=True)
    assert waited is not None
    assert TYPED_AHEAD <= len(waited.buffered_input) <= TYPED_AHEAD + 32 * 1024
    assert client.input.size == 100 * 1024 - len(waited.buffered_input)
    ended = TestClient()
    ended.input.put_eof()
    waited = await wait_for_sandbox(ended, asyncio.sleep(0.05), interruptible=True)
    assert waited is not None
    assert waited.eof
