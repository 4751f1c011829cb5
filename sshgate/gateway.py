"""One session from request to outcome: the one place where the line and control meet.

A front door authenticates, asks ``Gateway.login`` for a ``Login`` and hands every channel to ``Login.run``.
"""

from __future__ import annotations

from sshgate.access.identity import Identity
from sshgate.streams import Client, Request


class Login:
    """One authenticated connection. Its front door calls ``close`` when the connection has ended."""

    async def run(self, request: Request, client: Client) -> None:
        """Serve one channel to its end: sandbox, program, bridge, exit status, and the sandbox's removal.

        Always ends with ``client.finish``, whatever happens; raises nothing but ``CancelledError``. The
        front door runs it as a task of its own and never cancels it because the client has gone (``run``
        sees that by ``Client.wait_closed``); only shutdown cancels.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """The connection has ended: remove what it shared. Never raises."""
        raise NotImplementedError


class Gateway:
    """What a front door needs to know of the rest."""

    def login(self, identity: Identity) -> Login:
        """Called once authentication has succeeded, never before."""
        raise NotImplementedError
