"""A sandbox that forwards may go to, before and while it is there."""

from __future__ import annotations

import asyncio

from sshgate.access.policy import Grant
from sshgate.errors import GateError
from sshgate.sandbox.provider import Sandbox


class Place:
    """The sandbox of ``granted``, once it is known."""

    def __init__(self, granted: Grant) -> None:
        self.granted = granted
        self.over = False
        self.sandbox: Sandbox | None = None
        self._error: GateError | None = None
        self._known = asyncio.Event()

    def __repr__(self) -> str:
        state = "over" if self.over else self.sandbox.id if self.sandbox is not None else "starting"
        return f"<Place {self.granted.profile.name} {state}>"

    @property
    def usable(self) -> bool:
        """Whether there is a sandbox to forward to, or one may still come."""
        return not self.over and (self.sandbox is None or self.sandbox.usable)

    def entered(self, sandbox: Sandbox) -> None:
        """The sandbox is there."""
        self.sandbox = sandbox
        self._known.set()

    def failed(self, error: GateError) -> None:
        """There is none, or none any more; ``error`` tells those who ask."""
        self.over = True
        self._error = self._error or error
        self._known.set()

    async def get(self) -> Sandbox:
        """Waits for the sandbox. Raises ``GateError`` when it will not come."""
        await self._known.wait()
        if self._error is not None:
            raise self._error
        assert self.sandbox is not None
        return self.sandbox
