"""Switches tracing on. OpenTelemetry is imported only if traces are configured."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from importlib import import_module

from sshgate.config.model import Traces
from sshgate.errors import ConfigError
from sshgate.stream.tasks import within
from sshgate.telemetry.events import Events

# Time for sending the last spans at shutdown. The rest is lost: traces must not delay the gateway's end further.
FLUSH_SECONDS = 2.0

# A header line: name as in RFC 9110 section 5.6.2, value as in section 5.5 but ASCII only.
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?)[ \t]*")


def checked(settings: Traces) -> Mapping[str, str]:
    """Check the settings and return the HTTP headers for the collector, read from ``headers_file``.

    Raises ``ConfigError`` if OpenTelemetry is not installed, or the file cannot be read or is malformed.
    """
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
        if line and found is None:  # do not quote it in the error: it may contain a secret
            raise ConfigError([f"{name}: line {number} is no header; write `name: value`."])
        if found is not None:
            headers[found[1]] = found[2]
    return headers


@contextlib.asynccontextmanager
async def traced(settings: Traces, events: Events, pods: bool) -> AsyncIterator[None]:
    """Trace all events while the body runs.

    At the end all open spans are ended, and sending the last ones takes at most ``FLUSH_SECONDS``.

    Args:
        pods: sandboxes are Kubernetes pods, which have an attribute name of their own.

    Raises:
        ConfigError: as ``checked``.
    """
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
        await within(FLUSH_SECONDS, _in_daemon_thread(traces.shutdown))


async def _in_daemon_thread(work: Callable[[], object]) -> None:
    """Run blocking work, which goes on when this is cancelled.

    A daemon thread instead of asyncio's pool: threads of the pool are joined when the process ends.
    """
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def run() -> None:
        work()
        with contextlib.suppress(RuntimeError):  # too late: the loop is closed
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, daemon=True).start()
    await done.wait()
