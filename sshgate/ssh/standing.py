"""A connection's place before its login: how far it has come, and what its source pays where it comes no further."""

from __future__ import annotations

import asyncio
import time

import asyncssh

from sshgate.access.connections import MADE_ROOM
from sshgate.access.penalties import Offence
from sshgate.errors import LimitReached
from sshgate.ssh._asyncssh.arrival import Arrival
from sshgate.ssh.contracts import Slot
from sshgate.telemetry.timings import Stage, Timings


class Standing:
    """An ``access.connections.Entrant``."""

    def __init__(self, marks: Timings, grace: float) -> None:
        self._marks = marks
        self._grace = grace
        self.transport: Arrival | None = None
        self.slot: Slot | None = None
        self.failures = 0
        """Attempts to log in that have failed."""
        self._known_key = False
        self._leaving: asyncio.TimerHandle | None = None
        self.cut_by: str | None = None
        """Why the gateway has ended it, where it was not the client's doing."""

    def __repr__(self) -> str:
        return f"<Standing {self.progress}, {self.failures} failures, {self.slot!r}>"

    @property
    def progress(self) -> int:
        """How far it has come towards a login. Only the first step costs the client nothing."""
        if self._known_key:
            return 3
        if Stage.KEY_EXCHANGE in self._marks.times:
            return 2
        return int(self.transport is not None and self.transport.greeted)

    def offered(self, good: bool) -> bool:
        """It has offered a key, signed or not, and whether that would do; the same again."""
        self._known_key = good
        return good

    def make_room(self, seconds: float) -> None:
        """As ``Entrant`` has it."""
        self._stay()
        self._leaving = asyncio.get_running_loop().call_later(seconds, self._cut, MADE_ROOM)

    def logged_in(self, user: str) -> None:
        """It is somebody's. Raises ``LimitReached``, and then it is ended with the sentence."""
        assert self.slot is not None
        try:
            self.slot.authenticated(user)
        except LimitReached as error:
            self._cut(str(error))
            raise
        finally:
            self._stay()

    def ended(self, error: Exception | None, excused: bool) -> None:
        """The connection is over; ``excused``: it was logged in, or nobody let it."""
        assert self.slot is not None
        self._stay()
        offence = self._offence(error)
        if offence is not None and self.cut_by is None and not excused:
            self.slot.failed(offence)
        self.slot.release()

    def _stay(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()

    def _cut(self, reason: str) -> None:
        self.cut_by = reason
        if self.transport is not None:
            self.transport.disconnect(asyncssh.DISC_TOO_MANY_CONNECTIONS, reason)

    def _offence(self, error: Exception | None) -> Offence | None:
        """What its source pays for; nothing where it has said so little that it cost nothing."""
        if error is not None and not isinstance(error, (asyncssh.Error, OSError)):
            return Offence.CRASH
        if self.failures:
            return Offence.AUTHFAIL
        if self.progress < 2:
            return None
        late = time.monotonic() - self._marks.times[Stage.ACCEPT] >= self._grace
        return Offence.GRACE_EXCEEDED if late else Offence.NOAUTH
