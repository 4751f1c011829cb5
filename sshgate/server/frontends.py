"""The front doors that the configuration asks for, opened and closed as one."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Coroutine, Iterable
from typing import Any, Protocol, cast

from sshgate.access.identity import Identity
from sshgate.access.ledger import Ledger
from sshgate.access.user_records import FileShelf
from sshgate.config.model import Address, Config
from sshgate.server.core import Core
from sshgate.ssh.server import SshServer


class Frontend(Protocol):
    """One listener and what came in by it. Each is called once, in this order; ``close`` at any time."""

    @property
    def sessions(self) -> int:
        """Sessions that run."""

    async def listen(self) -> list[Address]:
        """Accept connections. Raises ``GateError``."""

    async def reconfigure(self, config: Config) -> None:
        """Settings for what comes in from now on. Raises ``ConfigError``, and nothing has changed."""

    def stop_accepting(self) -> None:
        """Nothing new."""

    async def drain(self, seconds: float) -> None:
        """Wait for what runs."""

    async def close(self) -> None:
        """Cut what runs."""


class WebFrontend(Frontend, Protocol):
    """The browser's."""

    @property
    def url(self) -> str:
        """What people open."""

    def login_link(self, identity: Identity, seconds: float) -> str:
        """A link that logs a browser in as this identity, once, within ``seconds``."""


class Frontends:
    """SSH always, the browser's where there is a section ``web``."""

    def __init__(self, config: Config, core: Core) -> None:
        self.ssh = SshServer(config, core.keyring, core.admission.ssh, core.gateway, core.telemetry.events)
        core.telemetry.metrics.reads(
            "sshgate_channels", "Open SSH channels: sessions and forwarded connections.", (),
            lambda: {(): self.ssh.channels},
        )  # fmt: skip
        self.web = _web(config, core)
        self._all: list[Frontend] = [*([self.web] if self.web is not None else []), self.ssh]
        self.addresses: list[Address] = []
        """Where SSH listens."""

    def __repr__(self) -> str:
        return f"<Doors {self._all!r}>"

    async def listen(self) -> None:
        """Open all of them. Raises ``GateError``; ``close`` then shuts those that were opened."""
        for door in self._all:
            self.addresses = await door.listen()

    async def reconfigure(self, config: Config) -> None:
        """Settings for what comes in from now on, and for the drain. Raises ``ConfigError``."""
        for door in (self.ssh, self.web):
            if door is not None:
                await door.reconfigure(config)

    def stop_accepting(self) -> None:
        """Nothing new, by any of them."""
        for door in self._all:
            door.stop_accepting()

    async def drain(self, seconds: float) -> None:
        """Wait for what runs behind all of them, at most this long."""
        await _all(door.drain(seconds) for door in self._all)

    async def close(self) -> None:
        """Cut what still runs behind any of them."""
        await _all(door.close() for door in self._all)


async def _all(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Carry out all of them to their ends, then raise what the first that failed has raised."""
    for outcome in await asyncio.gather(*works, return_exceptions=True):
        if outcome is not None:
            raise outcome


def _web(config: Config, core: Core) -> WebFrontend | None:
    if config.web is None:
        return None
    secret = config.web.secret
    ledger = Ledger(core.provider.shelf or FileShelf(secret.with_name(f"{secret.name}.issued")))
    # By its name: the core can be had without the shim, and most gateways need neither aiohttp's server nor argon2.
    server = importlib.import_module("webshim.server").WebServer
    events = core.telemetry.events
    return cast(WebFrontend, server(config, core.keyring, core.admission.web, core.gateway, core.verbs, events, ledger))
