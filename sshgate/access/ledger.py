"""What users were given, shared by all gateways and kept over their ends: written at once, read every few seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec
import structlog

from sshgate.access.issued import Issued, Logout, Token
from sshgate.errors import GateError, Unavailable

# How late another gateway knows of a revocation, besides the time that its answer takes.
REFRESH_SECONDS = 5.0
# Logouts that wait for a shelf that is away.
MOST_UNSAVED = 10_000

log = structlog.get_logger("sshgate.access")

Change = Callable[[Issued], Issued]

_issued = msgspec.json.Decoder(Issued)
_encode = msgspec.json.Encoder().encode


class Shelf(Protocol):
    """A place that outlives a gateway, with a text for each user."""

    async def all(self) -> Mapping[str, str]:
        """The texts of all users. Raises ``GateError``."""

    async def change(self, user: str, change: Callable[[str], str]) -> str:
        """Replace a user's text (empty: there was none) as one step, whoever else does. Raises ``GateError``."""


class Memory:
    """A shelf that ends with the gateway."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    async def all(self) -> Mapping[str, str]:
        return dict(self._texts)

    async def change(self, user: str, change: Callable[[str], str]) -> str:
        self._texts[user] = change(self._texts.get(user, ""))
        return self._texts[user]


class Ledger:
    """The texts of a shelf, as far as this gateway knows them."""

    def __init__(self, shelf: Shelf, clock: Callable[[], float] = time.time) -> None:
        self._shelf = shelf
        self._clock = clock
        self._users: dict[str, Issued] = {}
        self._unsaved: list[tuple[str, Change]] = []
        self._turn = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Ledger {len(self._users)} users, {len(self._unsaved)} changes to be saved>"

    async def run(self) -> None:
        """Read again and again, until cancelled; what could not be saved is tried again."""
        failing = False
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await self._save()
                await self.refresh()
                failing = False
            except GateError as error:
                if not failing:
                    log.warning("ledger.unavailable", reason=str(error))
                failing = True

    async def refresh(self) -> None:
        """Read what all gateways have written. Raises ``GateError``."""
        async with self._turn:
            texts = await self._shelf.all()
            self._users = {user: _read(text) for user, text in texts.items()}
            for user, change in self._unsaved:
                self._users[user] = change(self.of(user))

    def of(self, user: str) -> Issued:
        """What this user was given, as far as is known here."""
        return self._users.get(user, Issued())

    async def issue(self, user: str, token: Token) -> None:
        """Write a new token down. Raises ``LimitReached`` and ``Unavailable``; then it must not be handed out."""
        await self._change(user, lambda issued: issued.with_token(token, self._clock()))

    async def revoke(self, user: str, token: str) -> Token | None:
        """The token, worth nothing from now on; ``None``: this user has none of that id. Raises ``GateError``."""
        await self._change(user, lambda issued: issued.revoked(token, self._clock()))
        return self.of(user).tokens.get(token)

    async def logout(self, user: str, login: str, logout: Logout) -> None:
        """Never raises: here it holds at once, and it is saved as soon as that can be."""
        await self._end(user, lambda issued: issued.logged_out(login, logout, self._clock()))

    async def give_up(self, user: str, token: str) -> None:
        """As ``logout``, of a token by who holds it."""
        await self._end(user, lambda issued: issued.revoked(token, self._clock()))

    async def _end(self, user: str, change: Change) -> None:
        self._users[user] = change(self.of(user))
        self._unsaved.append((user, change))
        del self._unsaved[:-MOST_UNSAVED]
        try:
            await self._save()
        except GateError as error:
            log.warning("ledger.unavailable", reason=str(error))

    async def _save(self) -> None:
        while self._unsaved:
            user, change = self._unsaved[0]
            await self._change(user, change)
            if self._unsaved and self._unsaved[0] == (user, change):
                del self._unsaved[0]

    async def _change(self, user: str, change: Change) -> None:
        async with self._turn:
            text = await self._shelf.change(user, lambda old: _encode(change(_read(old))).decode())
            self._users[user] = _read(text)
            for whose, unsaved in self._unsaved:
                if whose == user:
                    self._users[user] = unsaved(self._users[user])


def _read(text: str) -> Issued:
    try:
        return _issued.decode(text) if text else Issued()
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Unavailable("what is known of tokens and logouts cannot be read; ask your operator.") from error
