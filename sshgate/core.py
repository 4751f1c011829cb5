"""Wiring: from configuration to a gateway that front doors can use."""

from __future__ import annotations

from sshgate.access.authorized_keys import Keyring
from sshgate.access.limits import Admission
from sshgate.config import Config
from sshgate.gateway import Gateway
from sshgate.sandbox.provider import Provider
from sshgate.sandboxverbs import SandboxVerbs
from sshgate.telemetry import Telemetry
from sshgate.verbs import Verbs


class Core:
    """Everything behind the front doors, opened and closed as one."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.keyring = Keyring(config.access.authorized_keys, config.access.user_ca)
        self.admission = Admission(config.limits)
        self.provider = make_provider(config)
        self.verbs = Verbs()
        SandboxVerbs(self.provider).add_to(self.verbs)
        self.telemetry = Telemetry()
        # Pods are counted over all gateways by their provider; what is local is this process's alone.
        counted = self.admission if config.sandbox.provider == "local" else None
        self.gateway = Gateway(self.provider, config.profiles, counted, self.verbs, self.telemetry)

    async def __aenter__(self) -> Core:
        await self.provider.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.provider.close()


def make_provider(config: Config) -> Provider:
    """The configured provider. Imported by need: Kubernetes' client costs 60 MiB and most of a second."""
    if config.sandbox.provider == "local":
        from sshgate.sandbox.local.provider import LocalProvider

        return LocalProvider(config.sandbox)
    from sshgate.sandbox.kubernetes.provider import KubernetesProvider

    return KubernetesProvider(config.sandbox, config.profiles, config.limits)
