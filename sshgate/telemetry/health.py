"""The HTTP listener for ``/healthz``, ``/readyz`` and ``/metrics``. It is read-only and serves no secrets."""

from __future__ import annotations

from typing import Protocol

from aiohttp import web

from sshgate.config.model import Address
from sshgate.errors import CannotListen
from sshgate.telemetry.metrics import Metrics
from sshgate.telemetry.readiness import Readiness

PROMETHEUS = "text/plain; version=1.0.0; charset=utf-8; escaping=underscores"
# Time for requests in progress to finish at shutdown.
CLOSE_SECONDS = 1.0


class HealthReport(Protocol):
    """What is served: of one process, or of all workers together."""

    async def why_not(self) -> str | None:
        """Return one sentence that says why no login can be accepted now; ``None``: one can. Takes a few seconds."""

    async def metrics(self) -> bytes:
        """Return all metrics in Prometheus' text format. May be cancelled."""


class OwnReport:
    """The ``HealthReport`` of a gateway that is one process."""

    def __init__(self, readiness: Readiness, metrics: Metrics) -> None:
        self._metrics = metrics
        self.why_not = readiness.why_not

    async def metrics(self) -> bytes:
        return self._metrics.text()


class HealthServer:
    """The server for probes and scrapes. It runs until the gateway ends, also during the drain."""

    def __init__(self, listen: Address, report: HealthReport, shared: bool = False) -> None:
        """``shared``: other workers serve the same address, for all of them as well."""
        self._listen = listen
        self._report = report
        self._shared = shared
        application = web.Application()
        application.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._serve_metrics),
            ]
        )
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=CLOSE_SECONDS)

    async def open(self) -> None:
        """Start to serve. Raises ``CannotListen`` if the address cannot be bound."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._listen.host, self._listen.port, reuse_port=self._shared).start()
        except OSError as error:
            await self._runner.cleanup()
            raise CannotListen("telemetry.listen", self._listen, error) from error

    async def close(self) -> None:
        """Stop serving; requests in progress have ``CLOSE_SECONDS`` to finish."""
        await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        """Answering shows that the event loop runs. Other problems would not be solved by a restart."""
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        reason = await self._report.why_not()
        return web.Response(text="ok\n" if reason is None else f"{reason}\n", status=200 if reason is None else 503)

    async def _serve_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=await self._report.metrics(), headers={"Content-Type": PROMETHEUS})
