"""What `ssh -s USER@HOST WORD` answers without a sandbox: the gateway's own subsystems.

A verb is given who asks and how, and returns text for stdout. Each part of the gateway that has something to tell
registers its verbs with ``Verbs.add`` while the core is wired; the gateway looks here before it asks for a sandbox.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sshgate.access.identity import Identity
from sshgate.streams import Request
from sshgate.telemetry.events import Trail


@dataclass(frozen=True, slots=True)
class Question:
    """Who asks, and the request with its accepted environment; the login name is ``identity.login``."""

    identity: Identity
    request: Request
    trail: Trail
    """For what the verb does: it knows the connection, the user and the session."""


Verb = Callable[[Question], Awaitable[str]]
"""Answers with whole lines, or raises ``GateError`` with the sentence that the user reads. Must not take longer
than a few seconds, and may be cancelled."""


class Verbs:
    """The verbs there are, by the name of their subsystem."""

    def __init__(self) -> None:
        self._verbs: dict[str, Verb] = {}

    def __repr__(self) -> str:
        return f"<Verbs {' '.join(sorted(self._verbs))}>"

    def add(self, name: str, verb: Verb) -> None:
        """Register a verb. Raises ``ValueError`` where the name is taken."""
        if name in self._verbs or name == "sftp":
            raise ValueError(f"there is a subsystem {name!r} already")
        self._verbs[name] = verb

    def get(self, name: str) -> Verb | None:
        """The verb of that name."""
        return self._verbs.get(name)
