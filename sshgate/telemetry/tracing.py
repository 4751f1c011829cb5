"""Whether traces are told, and to whom. OpenTelemetry is imported only where they are configured."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from importlib import import_module

from sshgate.config.model import Traces
from sshgate.errors import ConfigError
from sshgate.telemetry.events import Events

# What the collector has not taken by then is lost: nobody waits longer for a gateway's end because of traces.
FLUSH_SECONDS = 2.0

# RFC 9110 section 5.6.2, and 5.5 without what is not ASCII.
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?)[ \t]*")


def checked(settings: Traces) -> Mapping[str, str]:
    """The headers for the collector. Raises ``ConfigError`` where traces cannot be told with these settings."""
    try:
        import_module("sshgate.telemetry.otlp")
    except ImportError as error:
        sentence = "telemetry.traces: OpenTelemetry is not installed here; run `pip install 'sshgate[traces]'`."
        raise ConfigError([sentence]) from error
    if settings.headers_file is None:
        return {}
    name = f"telemetry.traces.headers_file: {settings.headers_file}"
    try:
        lines = settings.headers_file.read_text("ascii").splitlines()
    except OSError as error:
        raise ConfigError([f"{name}: cannot be read: {error.strerror}."]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{name}: this is not ASCII text."]) from error
    headers = {}
    for number, line in enumerate(lines, 1):
        found = _HEADER.fullmatch(line)
        if line and found is None:  # the line is not quoted: it holds a secret
            raise ConfigError([f"{name}: line {number} is no header; write `name: value`."])
        if found is not None:
            headers[found[1]] = found[2]
    return headers


@contextlib.asynccontextmanager
async def traced(settings: Traces, events: Events, pods: bool) -> AsyncIterator[None]:
    """Traces of all events while the body runs. ``pods``: the sandboxes are Kubernetes'. Raises ``ConfigError``."""
    headers = checked(settings)
    from sshgate.telemetry.otlp import provider
    from sshgate.telemetry.spans import Spans

    traces = provider(settings, headers)
    spans = Spans(traces.get_tracer("sshgate"), pods)
    events.tracer = spans
    try:
        yield
    finally:
        events.tracer = None
        spans.end()
        await _within(FLUSH_SECONDS, traces.shutdown)


async def _within(seconds: float, work: Callable[[], object]) -> None:
    """Run blocking work, and leave it alone when it takes longer.

    Not in asyncio's own pool, whose threads are waited for at the end of the process.
    """
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def run() -> None:
        work()
        with contextlib.suppress(RuntimeError):  # too late: the loop is closed
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, daemon=True).start()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await done.wait()
