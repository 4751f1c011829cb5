"""The registry of the gateway's own subsystems, which `ssh -s USER@HOST NAME` runs without a sandbox.

A handler gets a ``SubsystemRequest`` and returns text for stdout. The parts of the gateway register their handlers with
``SubsystemHandlers.add`` when they are wired together. The gateway asks the registry before it asks for a sandbox.
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
    """What a handler gets: the identity, and the request with its accepted environment."""

    identity: Identity
    request: Request
    events: EventContext
    """Emits the handler's events, with the connection, the user and the session."""
    word: str = ""
    """The arguments after the subsystem's name, with one space between them; empty if there are none."""

    @property
    def as_json(self) -> bool:
        """Whether the answer of a subsystem that takes ``JSON`` is one line of JSON instead of a table."""
        return self.word == JSON


SubsystemHandler = Callable[[SubsystemRequest], Awaitable[str]]
"""Returns text of whole lines, or raises ``GateError`` with a sentence for the user. Must not take longer than a few
seconds, and may be cancelled."""

JSON = "--json"
"""The argument of subsystems that list something."""

LISTS = f"[{JSON}]"
"""What they take."""

FILES = "sftp"
"""The only subsystem that needs a sandbox."""


@dataclass(frozen=True, slots=True)
class _Subsystem:
    handler: SubsystemHandler
    about: str
    takes: str


class SubsystemHandlers:
    """The handlers of all subsystems, by name. ``help`` is always among them."""

    def __init__(self) -> None:
        self._known: dict[str, _Subsystem] = {}
        self.add("help", self._help, "this list")

    def add(self, name: str, handler: SubsystemHandler, about: str, takes: str = "") -> None:
        """Register the handler of a subsystem.

        Args:
            about: One line for ``help``.
            takes: The names of its arguments, of which all may be missing; empty if it takes none. ``LISTS``: only
                ``JSON``, for which the handler need not look.

        Raises:
            ValueError: The name is already in use.
        """
        if name in self._known or name == FILES:
            raise ValueError(f"there is a subsystem {name!r} already")
        self._known[name] = _Subsystem(handler, about, takes)

    async def answer(self, identity: Identity, request: Request, events: EventContext) -> str | None:
        """Run the handler that a request names and return its text; ``None`` if the request needs a sandbox.

        Raises:
            BadRequest: There is no such subsystem, or it does not take these arguments.
            GateError: From the handler.
        """
        asks = request.kind
        # The forced command of a key replaces every request.
        if not isinstance(asks, Subsystem) or asks.name == FILES or identity.restrictions.command is not None:
            return None
        # OpenSSH joins the arguments of its command line with spaces.
        name, *words = asks.name.split() or [""]
        known = self._known.get(name)
        if known is None:
            there = ", ".join(sorted([*self._known, FILES]))
            raise BadRequest(f"there is no subsystem {name[:40]!r} here; see `ssh -s USER@HOST help`: {there}.")
        if len(words) > len(known.takes.split()) or (known.takes == LISTS and words not in ([], [JSON])):
            raise BadRequest(f"say just `ssh -s USER@HOST {f'{name} {known.takes}'.strip()}`.")
        text = await known.handler(SubsystemRequest(identity, request, events, " ".join(words)))
        events.emit(Code.VERB, name=name)
        return text

    async def _help(self, request: SubsystemRequest) -> str:
        lines = [(f"{name} {known.takes}".strip(), known.about) for name, known in self._known.items()]
        lines.append((FILES, "files of a sandbox; for the program sftp"))
        width = max(len(usage) for usage, _ in lines)
        return "".join(f"ssh -s USER@HOST {usage.ljust(width)}  {about}\n" for usage, about in sorted(lines))
