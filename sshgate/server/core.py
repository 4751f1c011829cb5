"""Builds what all front ends share from the configuration: provider, admission, gateway and subsystems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from msgspec import convert

from sshgate.access.authorized_keys import Keyring
from sshgate.access.ledger import MemoryUserRecords
from sshgate.access.limits import Admission, share
from sshgate.access.siblings import Siblings
from sshgate.broker.budget import KeptRecords
from sshgate.broker.egress_counts import Destination, joined
from sshgate.config.load import node_address
from sshgate.config.model import Config, Limits
from sshgate.sandbox.interfaces import Provider
from sshgate.server.brokering import Brokering, RemoteBrokering
from sshgate.server.sharing import share_counts, share_events, share_starts
from sshgate.session.gateway import Gateway
from sshgate.session.ports import Ports
from sshgate.session.subsystems.egress import add_egress_to
from sshgate.session.subsystems.registry import SubsystemHandlers, SubsystemRequest
from sshgate.session.subsystems.sandboxes import SandboxSubsystems, add_ssh_config_to
from sshgate.session.subsystems.sessions import SessionSubsystems
from sshgate.session.subsystems.usage import add_usage_to
from sshgate.ssh.sftp import serve_files
from sshgate.telemetry import Telemetry
from sshgate.telemetry.metrics import Metrics
from sshgate.telemetry.readiness import Readiness


class Core:
    """Everything behind the front ends. An async context manager: it opens and closes the provider.

    Entering raises ``GateError`` if the provider cannot be used.
    """

    def __init__(self, config: Config, siblings: Siblings | None = None) -> None:
        """``siblings``: the other workers, if this process is one of several."""
        self.config = config
        self.siblings = siblings
        self.keyring = Keyring(config.access.authorized_keys, config.access.user_ca)
        self.admission = Admission(self._own_limits())
        self.telemetry = Telemetry()
        self.provider = make_provider(config, self.telemetry, siblings)
        self.readiness = Readiness(self.provider.check)
        self.subsystems = SubsystemHandlers()
        self.subsystems.add("receipt", self._receipt, "where the time of your last logins went, stage by stage")
        SandboxSubsystems(self.provider).add_to(self.subsystems)
        add_ssh_config_to(self.subsystems, node_address(), config.ssh.public_port)
        # The Kubernetes provider counts pods over all gateways. Local sandboxes are counted by this process.
        counted = self.admission if config.sandbox.provider == "local" else None
        self.brokering = make_brokering(config, self.telemetry, self.provider)
        self.ports = Ports(self.brokering.connections, config, self.provider.named)
        add_usage_to(self.subsystems, self.brokering.spent, lambda: self.brokering.prices.date)
        add_egress_to(self.subsystems, self._connected)
        self.gateway = Gateway(
            self.provider, config.profiles, counted, self.subsystems, self.telemetry, serve_files, self.ports
        )
        SessionSubsystems(self.gateway.held).add_to(self.subsystems)

        self._register_gauges(self.telemetry.metrics)
        if siblings is not None:
            share_counts(self.admission, siblings)
            share_events(self.telemetry.events, siblings)
            siblings.answers("receipt", self._receipts_of)
            siblings.answers("egress", self._connected_here)

    def _own_limits(self) -> Limits:
        one = self.siblings
        return self.config.limits if one is None else share(self.config.limits, one.index, one.count)

    def reconfigure(self, config: Config) -> None:
        """Apply the settings that can change while the gateway runs: profiles, limits and the length of a drain."""
        self.config = config
        self.admission.limits = self._own_limits()
        self.gateway.profiles = config.profiles
        self.brokering.reconfigure(config)
        self.ports.reconfigure(config)
        self.provider.reconfigure(config.profiles, config.limits)

    async def _receipt(self, request: SubsystemRequest) -> str:
        user = request.identity.user
        answers = await self.siblings.ask("receipt", user) if self.siblings is not None else {}
        return self.telemetry.receipts.text(user, [(began, text) for one in answers.values() for began, text in one])

    async def _receipts_of(self, user: str) -> list[tuple[float, str]]:
        return self.telemetry.receipts.of(user)

    async def _connected(self, user: str, name: str | None) -> Mapping[str, Sequence[Destination]]:
        found = await self.brokering.connected(user, name)
        if self.siblings is None or self.config.broker.listen is not None:
            return found
        answers = await self.siblings.ask("egress", [user, name])
        return joined([found, *(convert(one, dict[str, list[Destination]]) for one in answers.values())])

    async def _connected_here(self, asked: list[str]) -> dict[str, list[dict[str, object]]]:
        found = await self.brokering.connected(*asked)
        return {name: [asdict(one) for one in listed] for name, listed in found.items()}

    def _register_gauges(self, metrics: Metrics) -> None:
        admission, gateway = self.admission, self.gateway
        metrics.reads("sshgate_connections", "Open connections.", (), lambda: {(): admission.connections})
        metrics.reads(
            "sshgate_unauthenticated", "Open connections without a login.", (), lambda: {(): admission.unauthenticated}
        )
        metrics.reads("sshgate_sessions", "Sessions that run.", (), lambda: {(): gateway.sessions})
        metrics.reads("sshgate_forwards", "Open forwards by kind.", ("kind",), lambda: gateway.forwards)
        metrics.reads(
            "sshgate_sandboxes", "Sandboxes by profile and state; all gateways of a namespace see the same.",
            ("profile", "state"), self.provider.counts,
        )  # fmt: skip
        metrics.reads("sshgate_draining", "1 while the gateway shuts down.", (), lambda: {(): self.readiness.draining})

    async def __aenter__(self) -> Core:
        await self.provider.open()
        await self.brokering.open()
        self.ports.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.ports.close()
        await self.brokering.close()
        await self.provider.close()


def make_brokering(config: Config, telemetry: Telemetry, provider: Provider) -> Brokering | RemoteBrokering:
    """Create the broker of this process, or the connection to the one in another process."""
    records = KeptRecords(provider.spending_records or MemoryUserRecords())
    if config.broker.listen is not None:
        return RemoteBrokering(config, records)
    return Brokering(config, telemetry.events, records)


def make_provider(config: Config, telemetry: Telemetry, siblings: Siblings | None) -> Provider:
    """Create the configured provider, not opened yet.

    Imports only the chosen one: the Kubernetes client takes 60 MiB of memory and most of a second.
    """
    if config.sandbox.provider == "local":
        from sshgate.providers.local.provider import LocalProvider

        return LocalProvider(config.sandbox)
    from sshgate.providers.kubernetes.provider import KubernetesProvider

    provider = KubernetesProvider(
        config.sandbox, config.profiles, config.limits, telemetry.metrics.api_request, telemetry.events,
        siblings.index if siblings is not None else None,
        config.network.probe,
    )  # fmt: skip
    if siblings is not None:
        share_starts(provider.registry.starts, siblings)
    return provider
