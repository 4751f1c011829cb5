"""Settings that this version reads and checks but does not act on yet: told, so that nobody relies on them."""

from __future__ import annotations

from sshgate.config.model import Config


def ignored_settings(config: Config) -> list[str]:
    """One sentence for each such setting that is not at its default."""
    found = []
    for name, profile in config.profiles.items():
        if profile.warm and config.sandbox.provider == "local":
            found.append(f"profiles.{name}.warm has no effect with local sandboxes: each starts in some 65 ms")
        if profile.home is not None and config.sandbox.provider == "local":
            found.append(f"profiles.{name}.home has no effect with local sandboxes: they keep nothing")
    return found
