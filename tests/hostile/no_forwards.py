"""Forwards of a login that has no sandbox: none."""

from __future__ import annotations

import asyncio

from sshgate.errors import Denied
from sshgate.forwarding.destinations import Destination
from sshgate.stream.interfaces import OpenReverseChannel, Stream


class NoForwards:
    """Says no to all."""

    work = ()
    takes = 0.0
    """Seconds until a listener is refused."""

    @property
    def listeners(self) -> int:
        return 0

    async def connect(self, destination: Destination) -> Stream:
        raise Denied(f"nothing is forwarded here, to {destination} neither")

    async def listen(self, where: Destination, back: OpenReverseChannel) -> int:
        await asyncio.sleep(self.takes)
        raise Denied("nothing is forwarded here")

    def unlisten(self, where: Destination) -> bool:
        return False

    def agent_allowed(self) -> bool:
        return False

    def sessions_ended(self) -> None:
        pass
