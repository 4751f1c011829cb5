"""``sshgate broker``: the broker in a process of its own, the only one that has keys and a way to providers."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import structlog

from sshgate.broker.link import Linked, Links
from sshgate.broker.remote import BrokerListener
from sshgate.config.load import load
from sshgate.config.model import Config
from sshgate.errors import ConfigError, GateError
from sshgate.server.brokering import Brokering
from sshgate.server.loop import loop_factory
from sshgate.server.reload import ConfigReloader
from sshgate.stream.tasks import cancel, first_of
from sshgate.telemetry import Telemetry
from sshgate.telemetry import log as logs
from sshgate.telemetry.codes import Code
from sshgate.telemetry.readiness import Readiness

log = structlog.get_logger("sshgate.broker")


def run(config: Config, file: Path) -> int:
    """Serve until SIGTERM or SIGINT, then drain for ``ssh.drain``. A second signal cuts what is open.

    Returns:
        The exit status. Errors are printed to stderr.
    """
    logs.configure(config.log)
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(serve(config, file))
    except GateError as error:
        print(f"sshgate: {error}", file=sys.stderr)
        return error.status if error.status != 255 else 1
    return 0


async def serve(config: Config, file: Path) -> None:
    """Open everything, serve until a signal, drain, and close. Raises ``GateError`` if it cannot start."""
    if config.broker.listen is None:
        raise ConfigError(["broker.listen: name the address, such as 0.0.0.0:4712, at which gateways find the broker."])
    for provider in ("anthropic", "openai", "gemini"):
        model = getattr(config.models, provider)
        if model is not None and model.keys is not None and not model.keys.exists():
            log.warning("broker.no_keys", provider=provider, keys=str(model.keys))
    for name, host in config.git.items():
        if host.keys is not None and not host.keys.exists():
            log.warning("broker.no_keys", host=name, keys=str(host.keys))
    telemetry = Telemetry()
    links = Links()
    brokering = Brokering(config, telemetry.events, links)
    links.connected = brokering.connected
    listener = BrokerListener(config.broker, Linked(brokering.connections, links))
    stop: asyncio.Queue[int] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.put_nowait, number)

    async def apply(wanted: Config) -> None:
        brokering.reconfigure(wanted)

    async with AsyncExitStack() as stack:
        await brokering.open()
        stack.push_async_callback(brokering.close)
        if config.telemetry.audit is not None:
            stack.callback(telemetry.audit(config.telemetry.audit).close)
        readiness = Readiness(_nothing)
        if config.telemetry.listen is not None:
            from sshgate.telemetry.health import HealthServer, OwnReport

            health = HealthServer(config.telemetry.listen, OwnReport(readiness, telemetry.metrics))
            await health.open()
            stack.push_async_callback(health.close)
        await listener.open()
        stack.push_async_callback(listener.close)
        given, read = {"broker": config.broker}, partial(load, of_broker=True)
        reloader = ConfigReloader(file, config, apply, telemetry.events, given=given, read=read)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reloader.request_reload)
        stack.push_async_callback(cancel, asyncio.create_task(reloader.run()))
        readiness.serving = True
        telemetry.events.emit(Code.SERVING, addresses=str(config.broker.listen), provider="broker")
        await stop.get()
        readiness.draining = True
        listener.stop_accepting()
        # Gateways link to the next broker as well. Their links to this one stay until all is written down.
        await links.leave()
        await first_of(brokering.drain(config.ssh.drain), stop.get())
        await brokering.close()
    telemetry.events.report_omitted()
    telemetry.events.emit(Code.STOPPED)


async def _nothing() -> None:
    """The broker can always answer: that a provider cannot be reached is each request's own matter."""
