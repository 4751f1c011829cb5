"""Settings that have no effect with the chosen provider. The operator is warned about them."""

from __future__ import annotations

from sshgate.config.model import Config


def ignored_settings(config: Config) -> list[str]:
    """Return one clause for each setting that is given but has no effect."""
    found = []
    for name, profile in config.profiles.items():
        if profile.warm and config.sandbox.provider == "local":
            found.append(f"profiles.{name}.warm has no effect with local sandboxes: each starts in some 65 ms")
        if profile.home is not None and config.sandbox.provider == "local":
            found.append(f"profiles.{name}.home has no effect with local sandboxes: they keep nothing")
    return found
