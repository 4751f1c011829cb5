"""A connection before its login: its progress, and the penalty of its source if it does not log in."""

from __future__ import annotations

import asyncio
import time

import asyncssh

from sshgate.access.connections import MADE_ROOM, ConnectionSlot, Offence
from sshgate.errors import LimitReached
from sshgate.ssh._asyncssh.incoming import BoundedInput
from sshgate.telemetry.timings import Stage, Timings


class LoginProgress:
    """The ``access.connections.PendingLogin`` of one SSH connection.

    Args:
        grace: Seconds that a login may take (``ssh.login_grace``).
    """

    def __init__(self, timings: Timings, grace: float) -> None:
        self._timings = timings
        self._grace = grace
        self.transport: BoundedInput | None = None
        self.slot: ConnectionSlot | None = None
        self.failures = 0
        """The number of failed login attempts."""
        self._known_key = False
        self._leaving: asyncio.TimerHandle | None = None
        self.cut_by: str | None = None
        """Why the gateway has ended the connection; ``None`` if it has not."""

    def __repr__(self) -> str:
        return f"<LoginProgress {self.progress}, {self.failures} failures, {self.slot!r}>"

    @property
    def progress(self) -> int:
        """How far the login has come, 0 to 3. Every step after the first costs the client some work."""
        if self._known_key:
            return 3
        if Stage.KEY_EXCHANGE in self._timings.times:
            return 2
        return int(self.transport is not None and self.transport.greeted)

    def offered(self, good: bool) -> bool:
        """Record whether an offered key, signed or not, may log in. Returns ``good``."""
        self._known_key = good
        return good

    def make_room(self, seconds: float) -> None:
        self._stay()
        self._leaving = asyncio.get_running_loop().call_later(seconds, self._cut, MADE_ROOM)

    def logged_in(self, user: str) -> None:
        """The connection has logged in. Raises ``LimitReached`` after disconnecting it with that sentence."""
        assert self.slot is not None
        try:
            self.slot.authenticated(user)
        except LimitReached as error:
            self._cut(str(error))
            raise
        finally:
            self._stay()

    def ended(self, error: Exception | None, excused: bool) -> None:
        """The connection has ended. ``excused``: it had logged in, or a drain kept it from that, so no penalty."""
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
        """Return the offence of a connection that has not logged in; ``None`` if no key exchange was done."""
        if error is not None and not isinstance(error, (asyncssh.Error, OSError)):
            return Offence.CRASH
        if self.failures:
            return Offence.AUTHFAIL
        if self.progress < 2:
            return None
        late = time.monotonic() - self._timings.times[Stage.ACCEPT] >= self._grace
        return Offence.GRACE_EXCEEDED if late else Offence.NOAUTH
