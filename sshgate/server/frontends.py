"""The configured front ends (SSH, web), opened and closed together."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Coroutine, Iterable
from typing import Any, Protocol, cast

from sshgate.access.identity import Identity
from sshgate.access.ledger import FileUserRecords, Ledger
from sshgate.config.model import Address, Config
from sshgate.server.core import Core
from sshgate.ssh.server import SshServer


class Frontend(Protocol):
    """A listener with its connections and sessions.

    Call ``listen``, ``stop_accepting``, ``drain`` and ``close`` in this order, each once. ``close`` may be called at
    any time, also if ``listen`` has raised. After ``listen``, ``reconfigure`` may be called any number of times.
    """

    @property
    def sessions(self) -> int:
        """The number of running sessions."""

    async def listen(self) -> list[Address]:
        """Start to accept connections, and return the bound addresses.

        Raises:
            GateError: An address cannot be bound, or a key or certificate cannot be used.
        """

    async def reconfigure(self, config: Config) -> None:
        """Use other settings for new connections. If it raises ``ConfigError``, nothing has changed."""

    def stop_accepting(self) -> None:
        """Accept no new connections and sessions. Existing sessions go on."""

    async def drain(self, seconds: float) -> None:
        """Wait until all sessions have ended, ``seconds`` at most. Cancellation ends the wait, not the sessions."""

    async def close(self) -> None:
        """Cut the remaining sessions and connections, and wait for their cleanup."""


class WebFrontend(Frontend, Protocol):
    """The front end for browsers."""

    @property
    def url(self) -> str:
        """The URL that users open."""

    def login_link(self, identity: Identity, seconds: float) -> str:
        """Return a link that logs one browser in as ``identity``. It works once, within ``seconds``."""


class Frontends:
    """All front ends: SSH, and web if the configuration has a section ``web``.

    Call ``listen``, ``stop_accepting``, ``drain`` and ``close`` in this order, each once; ``close`` at any time.
    """

    def __init__(self, config: Config, core: Core) -> None:
        self.ssh = SshServer(config, core.keyring, core.admission.ssh, core.gateway, core.telemetry.events)
        core.telemetry.metrics.reads(
            "sshgate_channels", "Open SSH channels: sessions and forwarded connections.", (),
            lambda: {(): self.ssh.channels},
        )  # fmt: skip
        self.web = _make_web(config, core)
        self._all: list[Frontend] = [*([self.web] if self.web is not None else []), self.ssh]
        self.addresses: list[Address] = []
        """The addresses that SSH is bound to: it comes last in ``_all``."""

    async def listen(self) -> None:
        """Start to accept connections. If it raises ``GateError``, ``close`` shuts the front ends opened so far."""
        for frontend in self._all:
            self.addresses = await frontend.listen()

    async def reconfigure(self, config: Config) -> None:
        """Use other settings for new connections and the drain. If it raises ``ConfigError``, nothing has changed."""
        for frontend in (self.ssh, self.web):
            if frontend is not None:
                await frontend.reconfigure(config)

    def stop_accepting(self) -> None:
        """Accept no new connections and sessions."""
        for frontend in self._all:
            frontend.stop_accepting()

    async def drain(self, seconds: float) -> None:
        """Wait until the sessions of all front ends have ended, ``seconds`` at most."""
        await _all(frontend.drain(seconds) for frontend in self._all)

    async def close(self) -> None:
        """Cut the remaining sessions of all front ends. Closes each even if another raises."""
        await _all(frontend.close() for frontend in self._all)


async def _all(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all coroutines to their ends, then raise the first exception, if any."""
    for outcome in await asyncio.gather(*works, return_exceptions=True):
        if outcome is not None:
            raise outcome


def _make_web(config: Config, core: Core) -> WebFrontend | None:
    if config.web is None:
        return None
    secret = config.web.secret
    ledger = Ledger(core.provider.user_records or FileUserRecords(secret.with_name(f"{secret.name}.issued")))
    # Imported by name: the package can be installed without the web front end, and aiohttp and argon2 load only here.
    server = importlib.import_module("webshim.server").WebServer
    events = core.telemetry.events
    return cast(
        WebFrontend,
        server(
            config, core.keyring, core.admission.web, core.gateway, core.subsystems, events, ledger, core.siblings
        ),
    )  # fmt: skip
