"""The held sessions of a user's sandboxes: listing and ending them, for the subsystems and for browsers."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from sshgate.config.model import Profile
from sshgate.errors import GateError, NoSuchSandbox
from sshgate.hold import listing
from sshgate.hold.listing import HeldSession
from sshgate.sandbox.interfaces import Order, Provider, Sandbox

# Sandboxes of one request that are asked at a time.
AT_ONCE = 4

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
        places = asyncio.Semaphore(AT_ONCE)

        async def one(name: str) -> Listed:
            async with places:
                try:
                    return Listed(name, await self._ask(user, name, listing.sessions))
                except (GateError, TimeoutError) as error:
                    return Listed(name, [], str(error) or "the sandbox does not answer.")

        return list(await asyncio.gather(*(one(name) for name in names)))

    async def end(self, user: str, name: str, session: str) -> bool:
        """End a session of a sandbox. Returns whether there was one of this name.

        Raises:
            NoSuchSandbox: there is no such sandbox.
            GateError: it does not answer.
        """
        return await self._ask(user, name, lambda sandbox: listing.end(sandbox, session))

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


def _none(name: str) -> NoSuchSandbox:
    return NoSuchSandbox(f"you have no sandbox {name!r}; `ssh -s USER@HOST sandboxes` lists yours.")
