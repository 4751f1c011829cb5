"""Who asks the broker, what for, and how it is refused; and what meters and egress handlers have to be. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from sshgate.config.model import Config
from sshgate.stream.interfaces import PromptStream, Stream


@dataclass(frozen=True, slots=True)
class Caller:
    """The sandbox that a connection comes from. The gateway vouches for it; nothing in it is the sandbox's word."""

    user: str
    groups: tuple[str, ...]
    """Those of ``limits.groups`` that the user is in."""
    profile: str
    sandbox: str
    """Its id in logs and events."""
    uid: str
    """Differs from every earlier sandbox with the same id."""
    name: str | None
    """The name of a named sandbox."""


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One request to a model that may be made, as far as the rules have looked at it."""

    caller: Caller
    provider: str
    """``anthropic``, ``openai`` or ``gemini``."""
    path: str
    """Without the provider's prefix and the query."""
    model: str
    """As the client asked for it; empty for a list of models."""
    stream: bool
    """Whether the answer is a stream of events."""
    size: int
    """Bytes of its body."""

    @property
    def paid(self) -> bool:
        """Whether a model answers it: lists of models and counts of tokens are free."""
        return bool(self.model) and not self.path.lower().endswith(("count_tokens", "counttokens"))


class Refused(Exception):
    """A request that is answered here and never reaches the provider.

    Args:
        sentence: what the agent's user reads: what is wrong, and what to do.
        status: of HTTP.
        headers: more headers of the answer.
    """

    def __init__(self, sentence: str, status: int = 403, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.status = status
        self.headers = dict(headers or {})


class Observer(Protocol):
    """Looks at one answer while it passes. It cannot change or delay it, so both methods must be quick."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the answer's body, just as they are sent to the sandbox."""

    def finish(self) -> Mapping[str, str | int | float]:
        """Called once, when the answer has ended or broken off. Returns fields for the event of the request."""


class Meter(Protocol):
    """Decides whether a request may still be paid for, and counts what it costs."""

    async def admit(self, request: ModelRequest) -> None:
        """Return if the provider may be asked; called before that. Raises ``Refused`` if it may not."""

    def observe(self, request: ModelRequest, status: int, headers: Mapping[str, str]) -> Observer:
        """Return an observer of the answer. ``status`` (of HTTP) and ``headers`` are the provider's."""


EgressHandler = Callable[[Stream, Caller], Awaitable[None]]
"""Answers a connection that begins with CONNECT or with a request for a whole URL; it reads them itself.

It closes the stream. ``GateError`` is reported; cancellation closes both ends.
"""

NO_KEYS: Mapping[str, str] = MappingProxyType({})


class BrokerConnections(Protocol):
    """What answers connections from sandboxes: the broker itself, or the connection to one in another process."""

    async def open(self) -> None:
        """Prepare, once, before any other call. Raises ``GateError``."""

    async def serve(self, stream: PromptStream, caller: Caller, brought: Mapping[str, str] = NO_KEYS) -> None:
        """Answer one connection to its end, and close it. Never raises. Cancelling closes it.

        Args:
            brought: the keys that the sandbox's user has brought, by provider.
        """

    def reconfigure(self, config: Config) -> None:
        """Use other settings for connections that begin later."""

    async def close(self) -> None:
        """Close all connections that are being served, and wait for their end."""
