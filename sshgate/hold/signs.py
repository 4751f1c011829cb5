"""The signs of life of a held session's client, as its gateway reports them to the resident.

A login asks those who are in its user's sessions for one, by the resident, and gives up after 2 s who shows none. The
answer of a slow client comes behind the output that waits for it, and so does the question. So what it takes of that
output is a sign as well. Taken output counts only while some is left that its TCP, or its page, could not take yet: a
load balancer takes small amounts for a client that is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from sshgate.stream.tasks import Event, TaskSet

# Seconds between two looks at what a client has taken: several within the two seconds that it has.
LOOK_SECONDS = 0.4
# After so many the one who asked has decided.
LOOKS = 5
# Looks at a client without room after which it is asked. It may be well, and its user have stopped the terminal.
ASKED_EVERY = 3

Alive = Callable[[], Awaitable[bool]]
"""Returns whether the client shows a sign of life; may wait."""

Progress = Callable[[], int | None]
"""Returns a number that grows while the client takes output; ``None``: none waits, or that cannot be known."""


def nothing_known() -> int | None:
    """The ``Progress`` of a client about which nothing is known."""
    return None


class Signs:
    """Reports one client's signs of life by ``report``. The owner calls ``close``."""

    def __init__(self, alive: Alive, progress: Progress, report: Callable[[], None]) -> None:
        self._alive = alive
        self._progress = progress
        self._report = report
        self._last: int | None = None
        self._answers = TaskSet()
        self._watches = TaskSet()

    def ask(self) -> None:
        """Ask the client for one, unless that is being done."""
        self._ask()
        if not len(self._watches):
            self._last = self._progress()
            self._watches.start(self._watch())

    async def room(self, room: Event) -> None:
        """Wait until the client has room for output. Until then its signs are reported unasked: no question comes."""
        self._last = None
        looks = 0
        while not room.is_set():
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await room.wait()
            except TimeoutError:
                looks += 1
                self._look()
                if looks % ASKED_EVERY == 0:
                    self._ask()

    async def close(self) -> None:
        """Ask no more. Never raises."""
        await self._answers.cancel()
        await self._watches.cancel()

    def _ask(self) -> None:
        if not len(self._answers):
            self._answers.start(self._answer())

    def _look(self) -> None:
        before, self._last = self._last, self._progress()
        if before is not None and self._last is not None and self._last > before:
            self._report()

    async def _answer(self) -> None:
        if await self._alive():
            self._report()

    async def _watch(self) -> None:
        for _ in range(LOOKS):
            await asyncio.sleep(LOOK_SECONDS)
            self._look()
