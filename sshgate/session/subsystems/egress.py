"""The subsystem `egress`: what a sandbox has connected to by name, and what it was refused."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict

from sshgate.access.policy import sandbox_name
from sshgate.broker.egress_counts import Destination
from sshgate.lifecycle.clocks import span
from sshgate.session.subsystems.registry import LISTS, SubsystemHandlers, SubsystemRequest
from sshgate.session.subsystems.sandboxes import table

Destinations = Callable[[str, str | None], Awaitable[Mapping[str, Sequence[Destination]]]]
"""Returns the destinations of a user's sandboxes, or of the one of this name."""

KIBI = 1 << 10
UNITS = ("B", "Ki", "Mi", "Gi", "Ti")


def add_egress_to(
    subsystems: SubsystemHandlers, destinations: Destinations, clock: Callable[[], float] = time.time
) -> None:
    """Register the subsystem. ``clock`` gives seconds since the epoch."""

    async def egress(request: SubsystemRequest) -> str:
        name = sandbox_name(request.identity, request.request)
        found = await destinations(request.identity.user, name)
        if request.as_json:
            rows = [{"sandbox": sandbox, **asdict(one)} for sandbox, listed in found.items() for one in listed]
            return json.dumps(rows) + "\n"
        return egress_table(found, clock()) if found else "nothing has asked to connect by name.\n"

    subsystems.add(
        "egress", egress, "the names that your sandboxes, or USER=NAME, connected to or were refused", takes=LISTS
    )


def egress_table(found: Mapping[str, Sequence[Destination]], now: float) -> str:
    """Return a table of destinations; ``now`` is in seconds since the epoch."""
    heading = ("SANDBOX", "HOST", "PORT", "TIMES", "RESULT", "SENT", "RECEIVED", "LAST")
    rows = [
        (
            sandbox,
            one.host,
            str(one.port or "-"),
            str(one.count),
            "allowed" if one.refused is None else f"refused: {one.refused}",
            size(one.bytes_up),
            size(one.bytes_down),
            span(max(0.0, now - one.last)),
        )
        for sandbox, listed in found.items()
        for one in listed
    ]
    return table(heading, rows)


def size(count: int) -> str:
    """Return a number of bytes in the largest unit that leaves a whole number."""
    value, unit = float(count), 0
    while value >= KIBI and unit < len(UNITS) - 1:
        value, unit = value / KIBI, unit + 1
    return f"{value:.0f}{UNITS[unit]}" if count else "-"
