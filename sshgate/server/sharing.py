"""What the workers of one gateway share: counts of connections, timings of logins, health and metrics."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from sshgate.access.connections import Connections, Offence
from sshgate.access.limits import Admission, Starts
from sshgate.access.siblings import Siblings
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import Events
from sshgate.telemetry.metrics import Metrics, summed
from sshgate.telemetry.readiness import CHECK_SECONDS, Readiness

# Another worker's answer may take as long as its check of the API server, and a turn of its loop.
READY_SECONDS = CHECK_SECONDS + 0.5
METRICS_SECONDS = 2.0


class SharedCounts:
    """The ``access.connections.Others`` of one front end.

    Each worker learns how many connections each user has from each source at the others, and what sources owe.
    """

    def __init__(self, front_end: str, connections: Connections, siblings: Siblings) -> None:
        self._siblings = siblings
        self._connections = connections
        self._counted, self._charged = f"{front_end} connections", f"{front_end} offences"
        siblings.handle(self._counted, self._observe_count)
        siblings.handle(self._charged, self._observe_offence)
        siblings.when_gone(connections.forget_worker)
        connections.others = self

    def counted(self, user: str, origin: str, number: int) -> None:
        self._siblings.publish(self._counted, (user, origin), number)

    def charged(self, origin: str, offence: Offence) -> None:
        self._siblings.report(self._charged, (origin, offence.value))

    def _observe_count(self, worker: int, value: Any) -> None:
        (user, origin), number = value
        self._connections.counted_elsewhere(worker, user, origin, number)

    def _observe_offence(self, _: int, value: Any) -> None:
        origin, offence = value
        self._connections.charged_elsewhere(origin, Offence(offence))


def share_counts(admission: Admission, siblings: Siblings) -> None:
    """Let the workers count the connections of both front ends together."""
    SharedCounts("ssh", admission.ssh, siblings)
    SharedCounts("web", admission.web, siblings)


def share_starts(starts: Starts, siblings: Siblings) -> None:
    """Let the workers count the starts of each user together."""
    siblings.handle("sandbox started", lambda _, user: starts.taken_elsewhere(user, time.monotonic()))
    starts.others = lambda user: siblings.report("sandbox started", user)


def share_events(events: Events, siblings: Siblings) -> None:
    """Let the workers count the events that strangers cause together."""
    siblings.handle("stranger event", lambda _, value: events.passed_elsewhere(Code(value[0]), value[1]))
    events.others = lambda code, network: siblings.report("stranger event", (code.value, network))


class SharedReport:
    """The ``telemetry.health.HealthReport`` of all workers. Whichever is asked asks the others.

    Each leaves its metrics in its page, where its successor finds them: counters do not go back when a worker dies.
    """

    def __init__(self, readiness: Readiness, metrics: Metrics, siblings: Siblings, restarts: int) -> None:
        self._readiness = readiness
        self._metrics = metrics
        self._siblings = siblings
        self._page = siblings.pages[siblings.index]
        if left := self._page.read():
            metrics.carry_on(left)
        metrics.reads("sshgate_workers", "Processes of this gateway that run.", (), lambda: {(): 1.0})
        metrics.reads(
            "sshgate_worker_restarts", "How often one of them was started again.", (), lambda: {(): float(restarts)}
        )
        siblings.answers("ready", self._is_ready)
        siblings.answers("metrics", self._leave)

    async def why_not(self) -> str | None:
        """See ``HealthReport``: ready if one worker is."""
        own, others = await asyncio.gather(
            self._readiness.why_not(), self._siblings.ask("ready", seconds=READY_SECONDS)
        )
        # One that is still starting answers None.
        return None if True in others.values() else own

    async def _is_ready(self, _: object) -> bool:
        return await self._readiness.why_not() is None

    async def metrics(self) -> bytes:
        """See ``HealthReport``: the sums. A worker that does not answer counts by what it left last."""
        await self._leave(None)
        answered = await self._siblings.ask("metrics", seconds=METRICS_SECONDS)
        running = {self._siblings.index, *(worker for worker, left in answered.items() if left)}
        return summed((page.read() or b"", one in running) for one, page in enumerate(self._siblings.pages))

    async def _leave(self, _: object) -> bool:
        self._page.write(self._metrics.snapshot())
        return True
