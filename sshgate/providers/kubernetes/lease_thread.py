"""Renews this gateway's Lease from a separate thread, so that a busy gateway is not taken for dead.

The thread has its own event loop and connection. The gateway's loop only increments a counter; once that has not
changed for ``HUNG`` seconds the loop is considered stuck for good, and the thread stops renewing. Time in which the
whole process was stopped does not count.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from concurrent.futures import Future

import structlog

from sshgate.errors import GateError
from sshgate.lifecycle.membership import RENEW
from sshgate.providers.kubernetes.api.client import ApiServer
from sshgate.providers.kubernetes.leases import Leases
from sshgate.providers.kubernetes.liveness import PORT, LivenessEndpoint, answering
from sshgate.providers.kubernetes.podspec import Owner
from sshgate.stream.tasks import within

# As long as the kubelet waits for a pod whose /healthz does not answer: three probes, 20 s apart. A healthy loop is
# blocked for a second at most, since work per iteration is bounded.
HUNG = 60.0
TICK = 1.0
# Seconds until a failed renewal is retried.
AGAIN = 1.0
CLOSE_SECONDS = 3.0

log = structlog.get_logger("sshgate.sandbox.kubernetes")


class LoopWatchdog:
    """Watches from another thread, every ``TICK``, whether an event loop still runs. Call it for the answer."""

    def __init__(self, hung: float = HUNG) -> None:
        self.count = 0
        """Incremented by the loop at every tick."""
        self._hung = hung
        self._seen = 0
        self._still = 0.0

    def __call__(self) -> bool:
        return self._still < self._hung

    def look(self, elapsed: float) -> None:
        """Compare the count, ``elapsed`` seconds after the last call. Longer gaps mean that the thread was stopped."""
        if self.count != self._seen:
            self._seen, self._still = self.count, 0.0
        else:
            self._still += min(elapsed, 2 * TICK)


class LeaseRenewer:
    """The thread. Call ``start`` and ``close`` from the gateway's loop; the caller creates and releases the Lease."""

    def __init__(self, api: ApiServer, owner: Owner, hung: float = HUNG, port: int = PORT) -> None:
        """``port``: where this process answers other pods' liveness probes."""
        self._api = api
        self._port = port
        self._owner = owner
        self._turns = LoopWatchdog(hung)
        self._ticking: asyncio.TimerHandle | None = None
        self._over = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    async def start(self) -> LivenessEndpoint:
        """Start the thread, which first renews after ``RENEW`` seconds. Raises ``GateError``.

        Returns where this instance answers liveness probes.
        """
        opened: Future[LivenessEndpoint] = Future()
        loop = self._loop = asyncio.SelectorEventLoop()
        api = self._api.for_other_loop()

        def run() -> None:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(self._live(api, opened))

        self._thread = threading.Thread(target=run, name="sshgate-pulse", daemon=True)
        self._thread.start()
        self._tick()
        return await asyncio.wrap_future(opened)

    async def close(self) -> None:
        """Stop renewing, and wait for a renewal under way, at most ``CLOSE_SECONDS``. Never raises."""
        thread, self._thread = self._thread, None
        if self._ticking is not None:
            self._ticking.cancel()
        if thread is None or self._loop is None:
            return
        with contextlib.suppress(RuntimeError):  # the thread has ended already
            self._loop.call_soon_threadsafe(self._over.set)
        await asyncio.to_thread(thread.join, CLOSE_SECONDS)
        if thread.is_alive():
            log.warning("lease.unreleased", reason="a renewal of it is still under way")

    def _tick(self) -> None:
        self._turns.count += 1
        self._ticking = asyncio.get_running_loop().call_later(TICK, self._tick)

    # --- in the thread ---

    async def _live(self, api: ApiServer, opened: Future[LivenessEndpoint]) -> None:
        try:
            await api.open()
            async with answering(self._turns, self._port) as endpoint:
                opened.set_result(endpoint)
                await self._renew(Leases(api, self._owner), endpoint)
        except Exception as error:
            if opened.done():
                log.exception("lease.broken")
            else:
                opened.set_exception(error)
        finally:
            await api.close()

    async def _renew(self, leases: Leases, endpoint: LivenessEndpoint) -> None:
        looked = time.monotonic()
        due = looked + RENEW
        while not self._over.is_set():
            await within(TICK, self._over.wait())
            now = time.monotonic()
            self._turns.look(now - looked)
            looked = now
            if now < due or self._over.is_set() or not self._turns():
                continue
            try:
                await leases.renew(endpoint)
                due = now + RENEW
            except GateError as error:
                due = time.monotonic() + AGAIN
                log.debug("lease.failed", reason=str(error))
            except Exception:
                # A gateway that stops renewing is taken for dead.
                due = time.monotonic() + AGAIN
                log.exception("lease.broken")
