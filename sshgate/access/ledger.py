"""Issued tokens and logouts of all users, shared by all gateways and kept across restarts.

Changes are written immediately; the changes of other gateways are read every few seconds.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
import structlog

from sshgate.access.issued import Issued, Logout, Token
from sshgate.errors import GateError, Unavailable
from sshgate.sandbox.interfaces import UserRecords
from sshgate.stream.tasks import TaskSet
from sshgate.telemetry.rate_limit import RateLimit

# Upper bound on how long other gateways accept a revoked token, not counting the time of the read itself.
REFRESH_SECONDS = 5.0
# Minimum time between two reads because of tokens that are unknown here, and the time limit of such a lookup.
LOOKUP_SECONDS = 1.0
LONGEST_LOOKUP = 10.0
# Logouts kept in memory while the records are unavailable; the oldest are dropped beyond this.
MOST_UNSAVED = 10_000

log = structlog.get_logger("sshgate.access")

Change = Callable[[Issued], Issued]

_texts = msgspec.json.Decoder(dict[str, str])
_issued = msgspec.json.Decoder(Issued)
_encode = msgspec.json.Encoder().encode


class MemoryUserRecords:
    """A ``UserRecords`` in memory: its texts are lost when the gateway ends."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    async def all(self) -> Mapping[str, str]:
        return dict(self._texts)

    async def read(self, user: str) -> str:
        return self._texts.get(user, "")

    async def change(self, user: str, change: Callable[[str], str]) -> str:
        self._texts[user] = change(self._texts.get(user, ""))
        return self._texts[user]


class FileUserRecords:
    """A ``UserRecords`` in one JSON file with mode 0600, which several gateways on one machine may share.

    The file is created by the first write. All methods run in a thread and raise ``Unavailable`` when the file
    cannot be used. Cancelling ``change`` does not stop the thread: the write may still happen.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def all(self) -> Mapping[str, str]:
        return await asyncio.to_thread(self._read)

    async def read(self, user: str) -> str:
        return (await self.all()).get(user, "")

    async def change(self, user: str, change: Callable[[str], str]) -> str:
        return await asyncio.to_thread(self._changed, user, change)

    def _changed(self, user: str, change: Callable[[str], str]) -> str:
        with self._locked():
            texts = self._read()
            texts[user] = change(texts.get(user, ""))
            self._write(msgspec.json.encode(texts))
            return texts[user]

    def _read(self) -> dict[str, str]:
        try:
            return _texts.decode(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeError, msgspec.DecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is damaged; without it all tokens end"
            raise Unavailable(f"{self._path} cannot be read: {reason}.") from error

    def _write(self, content: bytes) -> None:
        try:
            new = self._path.with_name(f".{self._path.name}.new")
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError as error:
            raise Unavailable(f"tokens and logouts cannot be written down: {error.strerror}.") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold an exclusive lock on the directory. The file itself cannot be locked: every write replaces it."""
        try:
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise Unavailable(f"tokens and logouts cannot be written down: {error.strerror}.") from error
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
        finally:
            os.close(directory)


class Ledger:
    """This gateway's copy of the records, plus logouts that could not be saved yet.

    ``run`` keeps it up to date. Reading (``of``) never waits. ``clock`` gives seconds since the epoch.
    """

    def __init__(self, records: UserRecords, clock: Callable[[], float] = time.time) -> None:
        self._records = records
        self._clock = clock
        self._users: dict[str, Issued] = {}
        self._unsaved: list[tuple[str, Change]] = []
        self._turn = asyncio.Lock()
        self._tasks = TaskSet()
        self._warnings = RateLimit()
        self._lookup: asyncio.Task[None] | None = None
        self._looked_up_at = -LOOKUP_SECONDS

    def __repr__(self) -> str:
        return f"<Ledger {len(self._users)} users, {len(self._unsaved)} changes to be saved>"

    async def run(self) -> None:
        """Refresh and save pending logouts every ``REFRESH_SECONDS``, until cancelled. Failures are logged once."""
        failing = False
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await self.refresh()
                await self._save()
                failing = False
            except Exception as error:
                # Whatever it is, a later try may go well; the end of this loop would hide all further revocations.
                if not failing:
                    log.warning("ledger.unavailable", reason=str(error), exc_info=not isinstance(error, GateError))
                failing = True

    async def refresh(self) -> None:
        """Read what all gateways have written. Raises ``GateError``; the copy is unchanged then."""
        async with self._turn:
            texts = await self._records.all()
            self._users = {user: self._read_or_keep(user, text) for user, text in texts.items()}
            for user, change in self._unsaved:
                self._users[user] = change(self.of(user))

    def _read_or_keep(self, user: str, text: str) -> Issued:
        try:
            return _read(text)
        except Unavailable as error:
            if self._warnings.due(user):
                log.error("ledger.damaged", user=user, reason=str(error.__cause__))
            # Without knowing which of their logins have ended, none of those so far counts.
            return self._users.get(user, Issued(before=self._clock()))

    def of(self, user: str) -> Issued:
        """Return what was issued to this user, as of the last refresh; empty for an unknown user."""
        return self._users.get(user, Issued())

    async def look_up(self, user: str, token: str) -> None:
        """Refresh if this token is unknown here: another gateway may have just issued it.

        Concurrent calls share a refresh, which begins after each of them and ``LOOKUP_SECONDS`` after the one before.

        Raises:
            Unavailable: the storage cannot be read, so that nobody knows whether the token is valid.
        """
        if token in self.of(user).tokens:
            return
        if self._lookup is None:
            self._lookup = self._tasks.start(self._refresh_later())
        await asyncio.shield(self._lookup)

    async def _refresh_later(self) -> None:
        await asyncio.sleep(self._looked_up_at + LOOKUP_SECONDS - time.monotonic())
        # A token that is asked for from here on may be too new for this refresh, so it gets the next one.
        self._lookup, self._looked_up_at = None, time.monotonic()
        try:
            async with asyncio.timeout(LONGEST_LOOKUP):
                await self.refresh()
        except Exception as error:  # ``run`` logs what it is
            raise Unavailable("it cannot be looked up whether this token is valid; try again in a moment.") from error

    async def issue(self, user: str, token: Token) -> None:
        """Record a new token. It must not be handed out before this has returned.

        Raises:
            LimitReached: the user has too many tokens.
            GateError: the records failed.
        """
        await self._change(user, lambda issued: issued.with_token(token, self._clock()))

    async def revoke(self, user: str, token: str) -> Token | None:
        """Revoke the token with this id and return it; ``None`` if the user has no such token.

        Takes effect only when it has been saved. Raises ``GateError`` when the records failed.
        """
        await self._change(user, lambda issued: issued.revoked(token, self._clock()))
        return self.of(user).tokens.get(token)

    async def logout(self, user: str, login: str, logout: Logout) -> None:
        """End a login by cookie; ``login`` is its id.

        Takes effect here immediately, even if this is then cancelled. If saving fails, ``run`` tries again; a
        failure of the records is logged, not raised.
        """
        await self._end(user, lambda issued: issued.logged_out(login, logout, self._clock()))

    async def give_up(self, user: str, token: str) -> None:
        """Revoke a token at the request of its holder. Like ``logout``: effective here at once, saved when possible."""
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
            first, saved = self._unsaved[0], False
            try:
                await self._change(*first)
                saved = True
            finally:
                if self._unsaved and self._unsaved[0] is first:
                    # One that fails, perhaps for its own sake, lets the others go first at the next try.
                    self._unsaved[:] = self._unsaved[1:] if saved else [*self._unsaved[1:], first]

    async def _change(self, user: str, change: Change) -> None:
        async with self._turn:
            text = await self._records.change(user, lambda old: _encode(change(_read(old))).decode())
            self._users[user] = _read(text)
            for whose, unsaved in self._unsaved:
                if whose == user:
                    self._users[user] = unsaved(self._users[user])


def _read(text: str) -> Issued:
    try:
        return _issued.decode(text) if text else Issued()
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Unavailable("what is known of tokens and logouts cannot be read; ask your operator.") from error
