"""What `ssh -s USER@HOST WORD` answers without a sandbox: the gateway's own subsystems.

A verb is given who asks and how, and returns text for stdout. Each part of the gateway that knows an answer
registers its verbs with ``Verbs.add`` while the core is wired; the gateway asks here before it asks for a sandbox.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sshgate.access.identity import Identity
from sshgate.errors import BadRequest
from sshgate.stream.interfaces import Request, Subsystem
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import EventContext


@dataclass(frozen=True, slots=True)
class SubsystemRequest:
    """Who asks, and the request with its accepted environment; the login name is ``identity.login``."""

    identity: Identity
    request: Request
    trail: EventContext
    """For what the verb does: it knows the connection, the user and the session."""
    word: str = ""
    """What stands behind the verb's name."""


SubsystemHandler = Callable[[SubsystemRequest], Awaitable[str]]
"""Answers with whole lines, or raises ``GateError`` with the sentence that the user reads. Must not take longer
than a few seconds, and may be cancelled."""

FILES = "sftp"
"""The one subsystem that needs a sandbox."""


@dataclass(frozen=True, slots=True)
class _Known:
    verb: SubsystemHandler
    about: str
    takes: str


class SubsystemHandlers:
    """The verbs there are, by the name of their subsystem."""

    def __init__(self) -> None:
        self._verbs: dict[str, _Known] = {}
        self.add("help", self._help, "this list")

    def __repr__(self) -> str:
        return f"<Verbs {' '.join(sorted(self._verbs))}>"

    def add(self, name: str, verb: SubsystemHandler, about: str, takes: str = "") -> None:
        """Register a verb with a line about it; ``takes`` names the word it takes. Raises ``ValueError``: taken."""
        if name in self._verbs or name == FILES:
            raise ValueError(f"there is a subsystem {name!r} already")
        self._verbs[name] = _Known(verb, about, takes)

    async def answer(self, identity: Identity, request: Request, trail: EventContext) -> str | None:
        """What one of them says to the request; ``None``: it needs a sandbox. Raises ``GateError``.

        A subsystem that is none is refused here, before anything is made for it.
        """
        asks = request.kind
        # A key that forces a command forces it whatever is asked.
        if not isinstance(asks, Subsystem) or asks.name == FILES or identity.restrictions.command is not None:
            return None
        # OpenSSH joins the words of its command line by blanks.
        name, *words = asks.name.split() or [""]
        known = self._verbs.get(name)
        if known is None:
            there = ", ".join(sorted([*self._verbs, FILES]))
            raise BadRequest(f"there is no subsystem {name[:40]!r} here; see `ssh -s USER@HOST help`: {there}.")
        if len(words) > (1 if known.takes else 0):
            raise BadRequest(f"say just `ssh -s USER@HOST {f'{name} {known.takes}'.strip()}`.")
        text = await known.verb(SubsystemRequest(identity, request, trail, words[0] if words else ""))
        trail.emit(Code.VERB, name=name)
        return text

    async def _help(self, question: SubsystemRequest) -> str:
        lines = [(f"{name} {known.takes}".strip(), known.about) for name, known in self._verbs.items()]
        lines.append((FILES, "files of a sandbox; for the program sftp"))
        width = max(len(usage) for usage, _ in lines)
        return "".join(f"ssh -s USER@HOST {usage.ljust(width)}  {about}\n" for usage, about in sorted(lines))
