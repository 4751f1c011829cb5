"""The broker of one process with its meter, budgets, proxy and counts, wired together."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence

import structlog

from sshgate.broker.budget import Accounts, Metering, SpendingRecords
from sshgate.broker.caller import BrokerConnections, Caller
from sshgate.broker.egress import EgressProxy
from sshgate.broker.egress_counts import Destination, EgressCounts
from sshgate.broker.link import GatewayLinks
from sshgate.broker.outside import SystemResolver
from sshgate.broker.prices import NANO, Prices
from sshgate.broker.remote import RemoteBroker
from sshgate.broker.server import Broker
from sshgate.broker.usage import Limit, Record
from sshgate.config.model import Budget, Config, Dollars, Egress
from sshgate.errors import ConfigError
from sshgate.stream.tasks import cancel, within
from sshgate.telemetry.events import Events

# Seconds that the end of the process waits for charges to be written down.
LAST_SECONDS = 5.0

log = structlog.get_logger("sshgate.broker")


class Brokering:
    """What answers sandboxes' ports, and what it has counted. ``open`` it, ``close`` it.

    Args:
        records: Where gateways share what users have spent.

    Raises:
        ConfigError: The file of prices cannot be used.
    """

    def __init__(self, config: Config, events: Events, records: SpendingRecords) -> None:
        self._config = config
        self.prices = Prices(config.models.prices)
        self.accounts = Accounts(records, secrets.token_hex(8))
        self.counts = EgressCounts(events, self._egress)
        self._resolver = SystemResolver()
        self._writing: asyncio.Task[None] | None = None
        proxy = EgressProxy(self._egress, self._resolver, self.counts.report)
        metering = Metering(self.accounts, self._limits, lambda: self.prices)
        self._broker = Broker(config, events, metering, proxy.serve)
        self.connections: BrokerConnections = self._broker

    async def open(self) -> None:
        """Prepare, once. Raises ``GateError``."""
        await self.connections.open()
        self._writing = asyncio.create_task(self.accounts.run())

    def reconfigure(self, config: Config) -> None:
        """Use other settings for what begins later. A file of prices that cannot be used leaves the old ones."""
        self.prices = _prices(config, self.prices)
        self._config = config
        self.connections.reconfigure(config)

    async def close(self) -> None:
        """Close what is open, and write down what users have spent. Idempotent."""
        await self.connections.close()
        if self._writing is not None:
            await cancel(self._writing)
            self._writing = None
            if not await within(LAST_SECONDS, self.accounts.flush()):
                log.warning("usage.lost", seconds=LAST_SECONDS)
        self._resolver.close()

    async def drain(self, seconds: float) -> None:
        """Wait until no sandbox's connection is open, ``seconds`` at most."""
        await self._broker.drain(seconds)

    # --- for the gateway's subsystems ---

    async def spent(self, user: str) -> Record:
        """Return what a user has spent, over all gateways. Raises ``GateError``."""
        return await self.accounts.of(user, age=0)

    async def connected(self, user: str, name: str | None) -> Mapping[str, Sequence[Destination]]:
        """Return what a user's sandboxes, or the one of this name, connected to by name."""
        return self.counts.of(user, name)

    # --- settings of a caller ---

    def _egress(self, caller: Caller) -> Egress | None:
        profile = self._config.profiles.get(caller.profile)
        return profile.egress if profile is not None else None

    def _limits(self, caller: Caller) -> Limit:
        of_all, profile = self._config.models.budget, self._config.profiles.get(caller.profile)
        own = profile.budget if profile is not None else Budget()
        sandbox = own.sandbox_usd if own.sandbox_usd is not None else of_all.sandbox_usd
        return Limit(_nano(of_all.user_day_usd), _nano(sandbox), _nano(own.user_day_usd))


class RemoteBrokering:
    """A gateway's connections to the broker in another process, which asks it for the records of spending.

    Raises:
        ConfigError: The secret or the file of prices cannot be used.
    """

    def __init__(self, config: Config, records: SpendingRecords) -> None:
        self.prices = Prices(config.models.prices)
        self.connections: BrokerConnections = RemoteBroker(config.broker)
        self._accounts = Accounts(records, secrets.token_hex(8))
        self._links = GatewayLinks(self.connections, records)

    async def open(self) -> None:
        await self.connections.open()
        self._links.open()

    def reconfigure(self, config: Config) -> None:
        self.prices = _prices(config, self.prices)
        self.connections.reconfigure(config)

    async def close(self) -> None:
        await self._links.close()
        await self.connections.close()

    async def spent(self, user: str) -> Record:
        return await self._accounts.of(user, age=0)

    async def connected(self, user: str, name: str | None) -> Mapping[str, Sequence[Destination]]:
        """See ``Brokering``. Raises ``Unavailable``."""
        return await self._links.connected(user, name)


def _prices(config: Config, before: Prices) -> Prices:
    try:
        return Prices(config.models.prices)
    except ConfigError as error:
        log.error("broker.prices", reason=str(error))
        return before


def _nano(amount: Dollars | None) -> int | None:
    return None if amount is None else round(amount * NANO)
