"""The held sessions of a user's sandboxes: listing and ending them, for the subsystems and for browsers."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from sshgate.access.policy import Grant
from sshgate.config.model import Profile
from sshgate.config.values import is_given
from sshgate.errors import GateError, NoSuchSandbox
from sshgate.hold import listing
from sshgate.hold.answers import GONE
from sshgate.hold.line import Line, SessionGone
from sshgate.hold.listing import HeldSession
from sshgate.hold.process import HeldProcess
from sshgate.hold.wishes import Wish
from sshgate.sandbox.interfaces import Order, Provider, Sandbox
from sshgate.sandbox.launcher import Program
from sshgate.stream.interfaces import Client, Outcome, Request, Shell
from sshgate.stream.tasks import first_of
from sshgate.stream.terminal import Terminal

# Sandboxes of one request that are asked at a time.
AT_ONCE = 4
# Seconds for the answers of all when a login's sessions are counted.
COUNT_SECONDS = 5.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Listed:
    """What one sandbox answered."""

    sandbox: str
    sessions: list[HeldSession]
    error: str = ""
    """One sentence, if it gave no answer."""


class HeldSessions:
    """The held sessions in the named sandboxes of every user. ``profiles`` returns the profiles of now."""

    def __init__(self, provider: Provider, profiles: Callable[[], Mapping[str, Profile]]) -> None:
        self._provider = provider
        self._profiles = profiles
        self._counting: dict[tuple[str, str], asyncio.Task[int]] = {}

    async def of(self, user: str, only: str | None = None, held_only: bool = False) -> list[Listed]:
        """Ask the user's sandboxes, or the one of this name. What an answer lacks is in its ``error``.

        Args:
            held_only: leave out the sandboxes whose profile holds no sessions now.

        Raises:
            NoSuchSandbox: there is none of this name.
        """
        listed = await self._provider.named.list(user)
        names = [one.name for one in listed if one.name is not None and only in (None, one.name)]
        if only is not None and not names:
            raise _none(only)
        if held_only:
            names = [name for name in names if (profile := self._profile(user, name)) and profile.hold != "never"]
        return await self._ask_all(user, names)

    async def limited(self, user: str, granted: Grant, wanted: Wish) -> Wish:
        """Return a wish that lets its sandbox have no more sessions than its user may have in all named ones.

        The others are asked only if they could have too many, and count as far as they answer.
        """
        limit, name = granted.profile.limits.sessions_per_user, granted.name
        others = [other for other in self._provider.named.names(user) if other != name]
        guess = wanted.most + sum(self._guess(user, other) for other in others)
        if name is None or wanted.how == "resume" or guess <= limit:
            return wanted
        counting = self._counting.get((user, name))
        if counting is None:  # many logins at once cause one round of questions
            counting = self._counting[user, name] = asyncio.create_task(self._count(user, others))
            counting.add_done_callback(lambda _: self._counting.pop((user, name)))
        left = max(0, limit - await asyncio.shield(counting))
        return replace(wanted, most=left, of_user=limit) if left < wanted.most else wanted

    def _guess(self, user: str, name: str) -> int:
        """How many sessions a sandbox may have. One that the gateway named: one, or tabs would ask each other's."""
        most = _most(self._profile(user, name))
        return min(1, most) if is_given(name) else most

    async def _count(self, user: str, names: Iterable[str]) -> int:
        found = await self._ask_all(user, [one for one in names if _most(self._profile(user, one))], COUNT_SECONDS)
        return sum(not each.ended for one in found for each in one.sessions)

    async def _ask_all(self, user: str, names: Iterable[str], seconds: float | None = None) -> list[Listed]:
        places = asyncio.Semaphore(AT_ONCE)

        async def one(name: str) -> Listed:
            try:
                async with asyncio.timeout(seconds), places:
                    return Listed(name, await self._ask(user, name, listing.sessions))
            except (GateError, TimeoutError) as error:
                return Listed(name, [], str(error) or "the sandbox does not answer.")

        return list(await asyncio.gather(*(one(name) for name in names)))

    async def end(self, user: str, name: str, session: str) -> bool:
        """End a session of a sandbox, and the sandbox if the gateway named it and nothing else is held there.

        Returns whether there was one of this name.

        Raises:
            NoSuchSandbox: there is no such sandbox.
            GateError: it does not answer.
        """

        async def end(sandbox: Sandbox) -> bool:
            found = await listing.end(sandbox, session)
            if found and is_given(name) and not await listing.running(sandbox):
                await self._provider.named.end(user, name)
            return found

        return await self._ask(user, name, end)

    async def named(self, user: str, name: str, session: str) -> HeldSession:
        """Return a session of a sandbox by its name.

        Raises:
            NoSuchSandbox: there is none, or it has ended.
            GateError: the sandbox does not answer.
        """
        for one in await self._ask(user, name, listing.sessions):
            if one.name == session and not one.ended:
                return one
        raise NoSuchSandbox(f"you have no session {session!r} there; `ssh -s USER={name}@HOST sessions` lists them.")

    async def watch(self, user: str, name: str, wish: Wish, client: Client) -> Outcome:
        """Show a session of a sandbox to a client until the client leaves or the session ends. No sandbox is claimed.

        The client's input reaches the program only if the wish ``types``; its window never counts. Cancelling leaves.

        Raises:
            NoSuchSandbox: there is no such sandbox.
            SessionGone: it has no such session.
            GateError: it does not answer, or has as many watchers as it may.
        """
        return await self._ask(user, name, lambda sandbox: _watch(sandbox, wish, client))

    def _profile(self, user: str, name: str) -> Profile | None:
        return self._profiles().get(self._provider.named.profile(user, name) or "")

    async def _ask(self, user: str, name: str, ask: Callable[[Sandbox], Awaitable[T]]) -> T:
        """Ask the sandbox of this name, which is not made if there is none."""
        profile = self._profile(user, name)
        if profile is None:
            raise _none(name)
        sandbox = await self._provider.named.find(Order(profile, user, secrets.token_hex(5), name))
        if sandbox is None:
            raise NoSuchSandbox("it has just ended.")
        return await ask(sandbox)


def _most(profile: Profile | None) -> int:
    """The number of sessions that a sandbox of this profile may have."""
    return 0 if profile is None or profile.hold == "never" else profile.limits.sessions


async def _watch(sandbox: Sandbox, wish: Wish, client: Client) -> Outcome:
    # Who looks does not begin anything where no resident runs.
    line = await Line.find(sandbox, joins=True)
    if line is None:
        raise SessionGone(GONE)
    process = HeldProcess(sandbox, line, wish, _alive)
    try:
        process.changed = getattr(client, "changed_there", process.changed)
        await process.launch(Program(Request(Shell(), Terminal()), shell="/bin/sh"))
        await first_of(_show(process, client), client.wait_closed(), _type(process, client))
    finally:
        await process.close()
    return await process.wait()


async def _alive() -> bool:
    """Nobody waits for a sign of life of who watches."""
    return True


async def _show(process: HeldProcess, client: Client) -> None:
    while (chunk := await process.read()) is not None:
        await client.write(*chunk)


async def _type(process: HeldProcess, client: Client) -> None:
    while (data := await client.read()) is not None:
        await process.write(data)
    # The end of its input is not the end of the program's.
    await client.wait_closed()


def _none(name: str) -> NoSuchSandbox:
    return NoSuchSandbox(f"you have no sandbox {name!r}; `ssh -s USER@HOST sandboxes` lists yours.")
