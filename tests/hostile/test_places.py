"""Places before a login: who holds them in silence keeps nobody out, and who fails again and again pays for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sshgate.config.model import Limits
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import Record
from tests.hostile.front_door import FrontDoor, front_door, make_key
from tests.hostile.polling import until
from tests.hostile.serving import serving

NEIGHBOURS = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
EACH = 20


async def hold(source: str, port: int, words: bytes) -> None:
    """Hold a connection, and take another one whenever it is cut."""
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
            try:
                writer.write(words)
                while await reader.read(1 << 16):
                    pass
            finally:
                writer.transport.abort()


@contextlib.asynccontextmanager
async def holding(sources: list[str], port: int, words: bytes) -> AsyncIterator[None]:
    """Twenty of them from each address."""
    tasks = [asyncio.create_task(hold(source, port, words)) for source in sources for _ in range(EACH)]
    await asyncio.sleep(0.5)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("words", [b"", b"SSH-2.0-x\r\n"], ids=["silent", "greeted"])
@pytest.mark.parametrize("sources", [NEIGHBOURS, ["127.0.0.1"], ["127.0.0.1", *NEIGHBOURS, *NEIGHBOURS]],
                         ids=["three addresses", "the same address", "both, and all places are taken"])  # fmt: skip
async def test_who_holds_places_keeps_nobody_out(tmp_path: Path, sources: list[str], words: bytes) -> None:
    async with serving(tmp_path, "uvloop") as server, holding(sources, server.port, words):
        for _ in range(3):
            assert await server.answers()


@pytest.fixture
async def strict(tmp_path: Path) -> AsyncIterator[FrontDoor]:
    """A door at which this machine pays like everybody else."""
    async with front_door(tmp_path, limits=Limits(penalty_exempt=())) as door:
        make_key(tmp_path / "stranger")
        yield door


def logged(door: FrontDoor) -> list[Record]:
    records: list[Record] = []
    door.server._events.add(records.append)
    return records


async def knock(door: FrontDoor) -> bytes:
    """Try to log in with a key that opens nothing."""
    door_key, stranger = str(door.key), str(door.place / "stranger")
    argv = [stranger if word == door_key else word for word in door.ssh_argv("true")]
    return (await door.ssh(argv=argv)).err


async def test_an_address_that_fails_again_and_again_is_turned_away_for_a_while(strict: FrontDoor) -> None:
    records = logged(strict)
    # Three pay 15 s in all, less what has gone by since the first.
    for _ in range(4):
        assert b"Permission denied" in await knock(strict)
    refused = await strict.ssh("exit 4")
    assert refused.status == 255
    reader, writer = await asyncio.open_connection("127.0.0.1", strict.port)
    writer.write(b"SSH-2.0-OpenSSH_10.0\r\n")
    # Which OpenSSH's client shows from 9.8 on.
    assert await reader.read() == b"Not allowed at this time\r\n"
    writer.close()
    for limited in [record for record in records if record.code is Code.CONNECTION_LIMIT]:
        assert "ended without a login; try again in" in str(limited.fields["reason"])
    assert [record.code for record in records].count(Code.CONNECTION_LIMIT) == 2


async def test_an_address_from_which_somebody_is_logged_in_is_not_turned_away(strict: FrontDoor) -> None:
    client = await strict.start("cat")
    await until(lambda: strict.programs.logins)
    for _ in range(5):
        assert b"Permission denied" in await knock(strict)
    assert (await strict.ssh("exit 4")).status == 4
    assert (await client.communicate(b"x"))[0] == b"x"


async def test_silent_connections_and_probes_cost_their_address_nothing(strict: FrontDoor) -> None:
    for words in (b"", b"SSH-2.0-x\r\n", b"GET / HTTP/1.0\r\n\r\n") * 20:
        _, writer = await asyncio.open_connection("127.0.0.1", strict.port)
        writer.write(words)
        await asyncio.sleep(0)
        writer.close()
    await until(lambda: strict.admission.connections == 0)
    assert (await strict.ssh("exit 4")).status == 4
