"""What each sandbox has connected to, and what it was refused: counts for its user, and events for operators."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sshgate.broker.caller import Caller
from sshgate.broker.egress import Attempt
from sshgate.config.model import Egress
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import Events, Stranger

# Destinations of one sandbox that are counted one by one: as many allowed as refused. A program can make up names.
MOST_DESTINATIONS = 50
# Of all sandboxes together. Beyond it, what has been quiet for longest is forgotten.
MOST_IN_ALL = 50_000
# Seconds after its last connection for which a sandbox is remembered.
QUIET_SECONDS = 86_400.0
# Destinations that a user gets to see.
MOST_LISTED = 500
OTHERS = "(others)"


@dataclass(slots=True)
class Destination:
    """One name and port of one sandbox. ``last``: seconds since the epoch."""

    host: str
    port: int
    refused: str | None
    """Why it was refused; ``None``: it was allowed."""
    count: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    last: float = 0.0


class _Sandbox:
    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.destinations: dict[tuple[str, int, str | None], Destination] = {}
        self.refused = 0
        self.last = 0.0

    def destination(self, attempt: Attempt) -> Destination:
        key = (attempt.host, attempt.port, attempt.refused)
        if key not in self.destinations:
            others = self.refused if attempt.refused else len(self.destinations) - self.refused
            if others >= MOST_DESTINATIONS:
                key = (OTHERS, 0, None if attempt.refused is None else OTHERS)
        known = self.destinations.get(key)
        if known is None:
            known = self.destinations[key] = Destination(*key)
            self.refused += attempt.refused is not None
        return known


class EgressCounts:
    """Counts attempts, and emits their events. Events of one sandbox are limited as those of one stranger.

    Args:
        policy: Returns the ``egress`` of a caller's profile.
        clock: Gives seconds since the epoch.
    """

    def __init__(
        self, events: Events, policy: Callable[[Caller], Egress | None], clock: Callable[[], float] = time.time
    ) -> None:
        self._events = events
        self._policy = policy
        self._clock = clock
        # In the order in which they were last active.
        self._sandboxes: dict[str, _Sandbox] = {}
        self._size = 0

    def __repr__(self) -> str:
        return f"<EgressCounts {self._size} destinations of {len(self._sandboxes)} sandboxes>"

    def report(self, caller: Caller, attempt: Attempt) -> None:
        """Take one attempt; an ``egress.Report``."""
        sandbox = self._sandboxes.pop(caller.uid, None) or _Sandbox(caller)
        self._sandboxes[caller.uid] = sandbox
        before = len(sandbox.destinations)
        one = sandbox.destination(attempt)
        self._size += len(sandbox.destinations) - before
        one.bytes_up += attempt.bytes_up
        one.bytes_down += attempt.bytes_down
        one.last = sandbox.last = self._clock()
        while self._size > MOST_IN_ALL or next(iter(self._sandboxes.values())).last < one.last - QUIET_SECONDS:
            self._forget(next(iter(self._sandboxes)))
        if not attempt.ended:
            one.count += 1
            self._emit(caller, attempt)

    def _emit(self, caller: Caller, attempt: Attempt) -> None:
        egress = self._policy(caller)
        if attempt.refused is None and egress is not None and not egress.log:
            return
        context = self._events.context(
            user=caller.user, sandbox=caller.sandbox, profile=caller.profile, name=caller.name, host=attempt.host,
            port=attempt.port,
        )  # fmt: skip
        # Whatever runs in a sandbox is as free to fill a disk as a stranger is.
        stranger = Stranger(f"sandbox {caller.uid}")
        if attempt.refused is None:
            context.emit(Code.EGRESS_ALLOWED, stranger=stranger)
        else:
            context.emit(Code.EGRESS_REFUSED, stranger=stranger, reason=attempt.refused, tls_name=attempt.tls_name)

    def _forget(self, uid: str) -> None:
        self._size -= len(self._sandboxes.pop(uid).destinations)

    def of(self, user: str, name: str | None = None) -> dict[str, list[Destination]]:
        """Return the destinations of a user's sandboxes, or of the one of this name, by the sandboxes' names.

        Most used ones first. Sandboxes without a name have their id. Beyond ``MOST_LISTED``, those that were quiet for
        longest are left out.
        """
        found: dict[str, list[Destination]] = {}
        left = MOST_LISTED
        for sandbox in reversed(self._sandboxes.values()):
            caller = sandbox.caller
            if left > 0 and caller.user == user and name in (None, caller.name):
                rows = in_order(sandbox.destinations.values())[:left]
                left -= len(rows)
                found.setdefault(caller.name or caller.sandbox, []).extend(rows)
        return found


def joined(parts: Iterable[Mapping[str, Sequence[Destination]]]) -> dict[str, list[Destination]]:
    """Add up what several processes have counted."""
    found: dict[str, dict[tuple[str, int, str | None], Destination]] = {}
    for part in parts:
        for sandbox, listed in part.items():
            for one in listed:
                whole = found.setdefault(sandbox, {})
                known = whole.setdefault((one.host, one.port, one.refused), one)
                if known is not one:
                    known.count += one.count
                    known.bytes_up += one.bytes_up
                    known.bytes_down += one.bytes_down
                    known.last = max(known.last, one.last)
    return {sandbox: in_order(whole.values()) for sandbox, whole in found.items()}


def in_order(listed: Iterable[Destination]) -> list[Destination]:
    """Return copies, allowed ones first, and the most used ones first of these and of the others."""
    return [replace(one) for one in sorted(listed, key=lambda one: (one.refused is not None, -one.count))]
