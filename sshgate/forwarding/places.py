"""The sandbox that forwards go to, from before it exists until it has ended."""

from __future__ import annotations

import asyncio

from sshgate.access.policy import Grant
from sshgate.errors import GateError
from sshgate.sandbox.provider import Sandbox


class ForwardTarget:
    """The sandbox of ``granted``, which may not exist yet. ``get`` waits for it."""

    def __init__(self, granted: Grant) -> None:
        self.granted = granted
        self.over = False
        self.sandbox: Sandbox | None = None
        self._error: GateError | None = None
        self._known = asyncio.Event()

    def __repr__(self) -> str:
        state = "over" if self.over else self.sandbox.id if self.sandbox is not None else "starting"
        return f"<ForwardTarget {self.granted.profile.name} {state}>"

    @property
    def usable(self) -> bool:
        """Whether there is a sandbox to forward to, or there may be one later."""
        return not self.over and (self.sandbox is None or self.sandbox.usable)

    def entered(self, sandbox: Sandbox) -> None:
        """The sandbox exists: ``get`` returns it from now on."""
        self.sandbox = sandbox
        self._known.set()

    def failed(self, error: GateError) -> None:
        """There is no sandbox, or it has ended: ``get`` raises the first such ``error`` from now on."""
        self.over = True
        self._error = self._error or error
        self._known.set()

    async def get(self) -> Sandbox:
        """Wait for the sandbox. Raises ``GateError`` when there is none. Cancelling affects no other waiter."""
        await self._known.wait()
        if self._error is not None:
            raise self._error
        assert self.sandbox is not None
        return self.sandbox
