"""What operators see: events, metrics, traces, the waterfall of a login, health. README.md beside this file lists them.

One ``Telemetry`` belongs to one gateway and is handed to the parts that have something to tell. They tell **events**
(``telemetry.events``); log lines, the audit file and most metrics follow from those, so that they cannot disagree.
Nothing here is a global, and nothing stands between two bytes of a session.
"""

from __future__ import annotations

from sshgate.telemetry.events import Events, to_log
from sshgate.telemetry.metrics import Metrics
from sshgate.telemetry.timings import TimingHistory, Timings


class Telemetry:
    """Events, metrics and receipts of one gateway."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.receipts = TimingHistory()
        self.events = Events(to_log, self.metrics.observe)

    def first_byte(self, marks: Timings, prompt: bool) -> None:
        """A session's program has said something for the first time. ``prompt``: it is a shell on a terminal."""
        self.metrics.first_byte(marks, prompt)
        if self.events.tracer is not None:
            self.events.tracer.first_byte(marks)

    def __repr__(self) -> str:
        return f"<Telemetry {self.events!r}, {self.receipts!r}>"
