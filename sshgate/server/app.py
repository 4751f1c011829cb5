"""Runs the gateway: opens the core and the front ends, serves until a signal, and drains."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import structlog

from sshgate.access.siblings import Siblings
from sshgate.config.model import Config
from sshgate.config.rules import ignored_settings
from sshgate.errors import CannotListen, ConfigError, GateError
from sshgate.server.core import Core
from sshgate.server.frontends import Frontends
from sshgate.server.loop import loop_factory
from sshgate.server.reload import ConfigReloader
from sshgate.server.sharing import SharedReport
from sshgate.server.workers import CUT, DRAIN, STOP, Parent, Worker
from sshgate.stream.tasks import cancel, first_of
from sshgate.telemetry import log as logs
from sshgate.telemetry.codes import Code
from sshgate.telemetry.tracing import traced

# Seconds between checks for running sessions, in a drain of which one step has failed.
DRAIN_POLL_SECONDS = 0.2

NOTHING: Mapping[str, Any] = MappingProxyType({})

OnReady = Callable[[Frontends], None]

log = structlog.get_logger("sshgate.app")


def run(
    config: Config, on_ready: OnReady | None = None, file: Path | None = None, given: Mapping[str, Any] = NOTHING
) -> int:
    """Serve until SIGTERM or SIGINT, then drain. A second signal cuts what still runs.

    The event loop is uvloop if it is installed and SSHGATE_LOOP is not ``asyncio``. Blocks; call it from the main
    thread. Leaves SIGTERM and SIGINT ignored.

    Args:
        on_ready: Called once, with the open front ends, when logins are accepted.
        file: The file that ``config`` was read from. It is read again when it changes, and at SIGHUP.
        given: Settings that stay as they are whatever the file has.

    Returns:
        The exit status: 0 after a signal, the error's status if the gateway cannot start. Errors are printed to stderr.
    """
    logs.configure(config.log)
    if config.workers == 1:
        return _run(config, on_ready, file, given)
    try:
        return Parent(config, file, lambda one, worker: _run(one, on_ready, file, given, worker)).run()
    except (CannotListen, ConfigError) as error:
        print(f"sshgate: {error}", file=sys.stderr)
        return error.status


def _run(
    config: Config, on_ready: OnReady | None, file: Path | None, given: Mapping[str, Any], worker: Worker | None = None
) -> int:
    """Serve in this process, which is one of several if there is a ``worker``."""
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(serve(config, on_ready, file, given, worker))
    except GateError as error:
        print(f"sshgate: {error}", file=sys.stderr)
        return error.status if error.status != 255 else 1
    except OSError as error:
        # An address that cannot be bound is a GateError. This is something else: the log gets its traceback.
        log.error("broken", exc_info=error)
        where = f": {error.filename}" if error.filename is not None else ""
        print(f"sshgate: {error.strerror or error}{where}.", file=sys.stderr)
        return 1
    finally:
        # The loop's signal handlers are gone. Without this, one more signal would kill a process that ends cleanly.
        for number in (*STOP, DRAIN, CUT):
            signal.signal(number, signal.SIG_IGN)
    return 0


async def serve(
    config: Config,
    on_ready: OnReady | None = None,
    file: Path | None = None,
    given: Mapping[str, Any] = NOTHING,
    worker: Worker | None = None,
) -> None:
    """Open everything, serve until a signal, drain, and close in reverse order.

    Cancellation skips the drain and closes everything.

    Args:
        on_ready: As in ``run``.
        file: As in ``run``.
        given: As in ``run``.
        worker: This process among those of its gateway; ``None``: it is the only one.

    Raises:
        GateError: The gateway cannot start.
    """
    if config.sandbox.provider == "local":
        from sshgate.providers.local.provider import refuse_public

        refuse_public([config.ssh.listen, *([config.web.listen] if config.web is not None else [])])
    stop = _stop_signals(worker is not None)
    siblings = Siblings(worker.boxes, worker.index) if worker is not None else None
    async with AsyncExitStack() as stack:
        if siblings is not None:
            siblings.open()
            stack.callback(siblings.close)
        core = await stack.enter_async_context(Core(config, siblings))
        await stack.enter_async_context(_telemetry_open(config, core, worker))
        events = core.telemetry.events
        frontends = Frontends(config, core)
        try:
            await frontends.listen()
            core.readiness.serving = True
            # These objects live until the end. Each full garbage collection would spend 30 ms on them.
            gc.freeze()
            web = frontends.web.url if frontends.web is not None else None
            addresses = " ".join(map(str, frontends.addresses))
            events.emit(Code.SERVING, addresses=addresses, provider=config.sandbox.provider, web=web)
            if core.keyring.empty:
                log.warning("no key is configured, nobody can log in", directory=str(config.access.authorized_keys))
            for sentence in ignored_settings(config):
                log.warning(sentence)
            if siblings is not None:
                siblings.serving()
            if on_ready is not None:
                on_ready(frontends)
            async with _settings_reloaded(file, given, core, frontends):
                await stop.get()
            await _drain(core, frontends, stop)
        finally:
            await frontends.close()
            core.readiness.serving = False
        events.report_omitted()
        events.emit(Code.STOPPED)


@asynccontextmanager
async def _telemetry_open(config: Config, core: Core, worker: Worker | None) -> AsyncIterator[None]:
    """Keep traces, the audit file and the telemetry listener open from before the first login until after the last."""
    async with AsyncExitStack() as stack:
        if config.telemetry.traces is not None:
            pods = config.sandbox.provider == "kubernetes"
            await stack.enter_async_context(traced(config.telemetry.traces, core.telemetry.events, pods))
        if config.telemetry.audit is not None:
            stack.callback(core.telemetry.audit(config.telemetry.audit).close)
        if config.telemetry.listen is not None:
            from sshgate.telemetry.health import HealthServer, OwnReport

            metrics = core.telemetry.metrics
            report = (
                OwnReport(core.readiness, metrics)
                if worker is None or core.siblings is None
                else SharedReport(core.readiness, metrics, core.siblings, worker.restarts)
            )
            health = HealthServer(config.telemetry.listen, report, shared=worker is not None)
            await health.open()
            stack.push_async_callback(health.close)
        yield


@asynccontextmanager
async def _settings_reloaded(
    file: Path | None, given: Mapping[str, Any], core: Core, frontends: Frontends
) -> AsyncIterator[None]:
    """Apply changed settings while the body runs."""
    if file is None:
        yield
        return

    async def apply(config: Config) -> None:
        await frontends.reconfigure(config)
        core.reconfigure(config)

    watch = ConfigReloader(file, core.config, apply, core.telemetry.events, given=given)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, watch.request_reload)
    task = asyncio.create_task(watch.run())
    try:
        yield
    finally:
        await cancel(task)
        # It is too late for a reload, but the default action of SIGHUP would end the process.
        loop.add_signal_handler(signal.SIGHUP, lambda: None)


async def _drain(core: Core, frontends: Frontends, stop: asyncio.Queue[int]) -> None:
    """Refuse new logins, announce the end on all terminals, and wait up to ``ssh.drain`` s or for a second signal."""
    seconds = core.config.ssh.drain
    core.readiness.draining = core.gateway.draining = True
    forwards = int(sum(core.gateway.forwards.values()))
    core.telemetry.events.emit(Code.DRAINING, sessions=core.gateway.sessions, forwards=forwards, seconds=seconds)
    frontends.stop_accepting()

    sentence = f"your session may go on for up to {seconds:g} s; a new login finds another."

    async def work() -> None:
        over = time.monotonic() + seconds
        announced = core.gateway.terminals.announce(f"this gateway is shutting down: {sentence}")
        done = await asyncio.gather(_run_step("announce", announced), _run_step("drain", frontends.drain(seconds)))
        # If one of the steps fails by a defect, running sessions still get their time.
        while not all(done) and core.gateway.sessions and time.monotonic() < over:  # noqa: ASYNC110
            await asyncio.sleep(DRAIN_POLL_SECONDS)

    await first_of(work(), stop.get())


def _stop_signals(by_parent: bool) -> asyncio.Queue[int]:
    """Return the queue of signals that stop this process: the first, and those that cut the drain.

    ``by_parent``: only its parent's ``CUT`` cuts. Otherwise each later signal does.
    """
    stop: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    caught: list[int] = []

    def stop_at(number: int) -> None:
        if not caught or number == CUT or not by_parent:
            caught.append(number)
            stop.put_nowait(number)

    numbers = [*STOP, DRAIN, CUT] if by_parent else STOP
    for number in numbers:
        loop.add_signal_handler(number, stop_at, number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    return stop


async def _run_step(step: str, work: Coroutine[Any, Any, None]) -> bool:
    """Run one step of a drain. Logs an exception and then returns false."""
    try:
        await work
    except Exception:
        log.exception("drain.broken", step=step)
        return False
    return True
