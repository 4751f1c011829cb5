"""What operators observe: events, metrics, traces, the timings of logins, health. See README.md in this directory.

The parts of a gateway share one ``Telemetry`` and emit **events** (``telemetry.events``). Log lines, the audit file
and most metrics are derived from the events, so they cannot disagree. There is no global state, and nothing here runs
per chunk of a session's data.
"""

from __future__ import annotations

from pathlib import Path

from sshgate.telemetry.audit import AuditFile
from sshgate.telemetry.events import Events, to_log
from sshgate.telemetry.metrics import Metrics
from sshgate.telemetry.timings import TimingHistory, Timings


class Telemetry:
    """The events, metrics and timing history of one gateway."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.receipts = TimingHistory()
        self.events = Events(to_log, counter=self.metrics.observe)

    def audit(self, path: Path) -> AuditFile:
        """Write all events to a file, which the caller closes. Raises ``ConfigError`` if it cannot be written."""
        audit = AuditFile(path)
        self.events.add(audit)
        self.metrics.reads(
            "sshgate_audit_lost", "Events that the audit file did not take.", (), lambda: {(): audit.lost}
        )
        return audit

    def first_byte(self, timings: Timings, prompt: bool) -> None:
        """Record that a session's program has sent its first output. ``prompt``: it is a shell on a terminal."""
        self.metrics.first_byte(timings, prompt)
        if self.events.tracer is not None:
            self.events.tracer.first_byte(timings)
