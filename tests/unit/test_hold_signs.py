"""The signs of life of a client, and what counts as one."""

from __future__ import annotations

import asyncio

import pytest

from sshgate.hold import signs
from sshgate.hold.signs import Signs
from sshgate.stream.tasks import Event


class Client:
    """It never answers; ``taken`` is what it is known to have taken."""

    def __init__(self) -> None:
        self.taken: int | None = None
        self.grows = 0
        self.asked = self.reported = 0
        self.signs = Signs(self._alive, self._taken, self._report)

    async def _alive(self) -> bool:
        self.asked += 1
        await asyncio.sleep(60)
        return True

    def _taken(self) -> int | None:
        if self.taken is not None:
            self.taken += self.grows
        return self.taken

    def _report(self) -> None:
        self.reported += 1


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signs, "LOOK_SECONDS", 0.01)


@pytest.mark.parametrize(("taken", "grows", "alive"), [(5, 1, True), (5, 0, False), (None, 1, False)])
async def test_what_a_client_takes_is_a_sign_while_it_has_no_answer(taken: int | None, grows: int, alive: bool) -> None:
    client = Client()
    client.taken, client.grows = taken, grows
    for _ in range(3):
        client.signs.ask()
    await asyncio.sleep(0.1)
    assert (client.reported > 0, client.asked) == (alive, 1)
    await client.signs.close()


async def test_who_has_no_room_is_looked_at_and_asked_until_it_has() -> None:
    client = Client()
    client.taken, client.grows = 5, 1
    room = Event()
    waiting = asyncio.create_task(client.signs.room(room))
    await asyncio.sleep(0.2)
    assert client.reported > 1
    assert client.asked == 1
    room.set()
    await asyncio.wait_for(waiting, 5)
    await client.signs.close()
