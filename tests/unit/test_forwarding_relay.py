"""The gateway's half of a relay: what it writes, and how much it takes from one that lies."""

from __future__ import annotations

import asyncio

import pytest

from sshgate.forwarding import inside
from sshgate.forwarding.destinations import Tcp
from sshgate.forwarding.relay import OUTBOX_HIGH, Relay, RelayStream, frame
from sshgate.stream import turns
from sshgate.stream.interfaces import STDOUT
from tests.unit.lying_relay import OfALyingRelay


async def test_answers_that_a_relay_does_not_read_stop_what_it_may_say() -> None:
    sandbox = OfALyingRelay()
    relay = await Relay.start(sandbox)
    sandbox.relay.reads = False
    sandbox.relay.accepts(listener=99, count=200_000)
    await sandbox.relay.stopped.wait()
    left = -1
    while left != sandbox.relay.output.size:
        left = sandbox.relay.output.size
        for _ in range(100):
            await asyncio.sleep(0)
    assert left > 0, "it was heard to the end, and each of its lies was answered"
    assert relay._outbox.size < 2 * OUTBOX_HIGH
    await relay.close()


@pytest.mark.parametrize("count", [1, 20])
async def test_small_pieces_are_gathered_if_they_are_of_several_streams(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So long that a machine that stalls does not make it as many messages as there are pieces.
    monkeypatch.setattr(turns, "GATHER", 0.2)
    monkeypatch.setattr(turns, "GATHER_MOST", 0.2)
    sandbox = OfALyingRelay()
    relay = await Relay.start(sandbox)
    accepted: asyncio.Queue[RelayStream] = asyncio.Queue()
    listening = asyncio.create_task(relay.listen(Tcp("127.0.0.1", 80), lambda one, *_: accepted.put_nowait(one)))
    await sandbox.relay.heard(frame(inside.LISTEN, 1, b"t\0P"))
    sandbox.relay.output.put(frame(inside.LISTENING, 1, b"\0P"), STDOUT)
    await listening
    sandbox.relay.accepts(listener=1, count=count)
    streams = [await accepted.get() for _ in range(count)]
    before, expected = sandbox.relay.writes, b""
    for number in range(100):
        piece = b"%d;" % number
        expected += frame(inside.DATA, inside.ACCEPTED_FROM + number % count, piece)
        assert streams[number % count].write_now(piece)
        for _ in range(3):
            await asyncio.sleep(0)
    await sandbox.relay.heard(expected)
    writes = sandbox.relay.writes - before
    assert writes == 100 if count == 1 else writes < 50
    await relay.close()


async def test_a_relay_that_breaks_the_rules_is_ended() -> None:
    sandbox = OfALyingRelay()
    relay = await Relay.start(sandbox)
    sandbox.relay.output.put(frame(inside.ACCEPTED, 1, b"short"), STDOUT)
    await relay.wait_ended()
    await relay._tasks.join()
    assert sandbox.relay.closed
