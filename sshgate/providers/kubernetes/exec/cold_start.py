"""Entering a pod that has only just been made: try the exec again and again, and watch for a reason to stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

import msgspec

from sshgate.config.model import ProfileLimits
from sshgate.errors import GateError, ProgramMissing, StartFailed, Unavailable
from sshgate.providers.kubernetes.api import errors as failures
from sshgate.providers.kubernetes.api.client import ApiServer
from sshgate.providers.kubernetes.api.objects import Event, WatchLine
from sshgate.providers.kubernetes.exec.diagnosis import PodPhase, StartupErrors, progress, waiting
from sshgate.providers.kubernetes.exec.process import ExecProcess
from sshgate.sandbox.provider import Notice
from sshgate.stream.interfaces import Lost

# Pauses between attempts, seconds: an attempt takes 10-25 ms, a pod about 350 ms.
SHORTEST_PAUSE = 0.02
LONGEST_PAUSE = 0.5
PAUSE_GROWTH = 1.15
# A running container that cannot be entered for this long never will be.
ENTRY_SECONDS = 8.0
# A running pod whose exec is called invalid for so long was refused by an admission rule.
REFUSED_SECONDS = 2.0
# So long a start waits for the watch to tell of the pod before it tries to enter unasked.
BLIND_SECONDS = 1.0
# A program that has said nothing for this long, in a running container, is taken for a silent one.
SILENT_SECONDS = 0.3
# A start that takes longer than this asks for the pod's events; most never do.
EVENTS_AFTER = 0.5

_line = msgspec.json.Decoder(WatchLine)
_event = msgspec.json.Decoder(Event)


class Starting(Protocol):
    """What the race needs to know of the pod."""

    @property
    def phase(self) -> PodPhase: ...

    def changed(self) -> asyncio.Future[None]:
        """Done at the next change of ``standing``."""


class StartupFailed(StartFailed):
    """The pod will never be entered; it is of no use to anybody."""


class ColdStart:
    """One cold start: from an accepted pod to a program in it, or a sentence that says why not."""

    def __init__(
        self,
        pod: Starting,
        attempt: Callable[[], Awaitable[ExecProcess]],
        limits: ProfileLimits,
        api_seconds: float,
        notice: Notice,
    ) -> None:
        self._pod = pod
        self._attempt = attempt
        self._limits = limits
        self._api_seconds = api_seconds
        self._notice = notice
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock()
        self._since: dict[str, float] = {}
        self._final: str | None = None
        self._errors = StartupErrors()

    async def run(self) -> ExecProcess:
        """Leaves no exec behind when it raises.

        Raises ``Hopeless``, ``ProgramMissing``, ``Forbidden``, ``NotFound`` or ``Unavailable``.
        """
        pause = SHORTEST_PAUSE
        errors: tuple[str, str] | None = None
        while True:
            now = self._pod.phase
            if (now.phase, now.reason) != errors:
                errors = (now.phase, now.reason)
                self._notice("starting" if now.phase == "running" else waiting(now.reason))
            self._give_up(now)
            if now.phase in ("starting", "running") or self._blind():
                process = await self._try()
                if process is not None:
                    return process
            await self._pause(pause if now.phase != "running" else SHORTEST_PAUSE)
            pause = min(pause * PAUSE_GROWTH, LONGEST_PAUSE)

    def observe(self, event: Event, image: str) -> None:
        """Take an event of the pod."""
        text = progress(event, image)
        if text is not None:
            self._notice(text)
        self._errors.observe(event, self._clock())
        if event.reason == "BackOff" and "pulling image" in event.message:
            self._final = f"the image {image!r} cannot be pulled: {self._errors.messages or 'ask the operator.'}"

    async def _try(self) -> ExecProcess | None:
        try:
            process = await self._attempt()
        except failures.Invalid as error:
            # Usually the API server does not know yet on which node the pod is; of a running one it means no.
            if self._pod.phase.phase == "running" and self._lasting("refused") > REFUSED_SECONDS:
                raise StartupFailed(str(error)) from error
            return None
        except Unavailable:
            if self._lasting("unavailable") > self._api_seconds:
                raise
            return None
        self._since.pop("unavailable", None)
        try:
            if await self._entered(process):
                return process
        except BaseException:
            await process.close()
            raise
        lost = process.outcome
        await process.close()
        if not isinstance(lost, Lost):
            return None
        if lost.status in (126, 127):
            raise ProgramMissing(lost.reason) if lost.status == 127 else _not_executable(lost.reason)
        if self._pod.phase.phase == "running" and self._lasting("entry") > ENTRY_SECONDS:
            raise StartupFailed(f"the sandbox runs but cannot be entered: {lost.reason}")
        return None

    async def _entered(self, process: ExecProcess) -> bool:
        """Whether it became a program. A refusal comes within some 20 ms, unless the node is very busy."""
        while not await process.begun(SILENT_SECONDS):
            if self._pod.phase.phase == "running":
                return True  # it runs and has nothing to say
            if self._pod.phase.over:
                return False
        return not isinstance(process.outcome, Lost)

    def _blind(self) -> bool:
        """Once in a while, when no news of the pod comes: trying shows whether the API server answers at all."""
        if self._lasting("no news") < BLIND_SECONDS:
            return False
        del self._since["no news"]
        return True

    def _give_up(self, now: PodPhase) -> None:
        if now.over:
            raise StartupFailed(now.reason)
        if self._final is not None:
            raise StartupFailed(self._final)
        if now.phase == "unschedulable":
            if self._lasting("unschedulable") > self._limits.unschedulable:
                raise StartupFailed(now.reason)
        else:
            self._since.pop("unschedulable", None)
        if now.phase == "starting" and self._errors.final:
            raise StartupFailed(f"the sandbox cannot be started: {self._errors.messages}")
        if self._clock() - self._began > self._limits.start:
            why = f": {self._errors.messages}" if self._errors.messages else "; try again, or ask the operator."
            raise StartupFailed(f"the sandbox did not start within {self._limits.start:g} s{why}")

    def _lasting(self, what: str) -> float:
        """Seconds since this was first seen."""
        now = self._clock()
        return now - self._since.setdefault(what, now)

    async def _pause(self, seconds: float) -> None:
        """Until the pod changes, at most ``seconds``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._pod.changed()


def _not_executable(reason: str) -> StartFailed:
    failure = StartFailed(reason)
    failure.status = 126
    return failure


@asynccontextmanager
async def events(
    api: ApiServer, uid: str, observe: Callable[[Event], None], after: float = EVENTS_AFTER
) -> AsyncIterator[None]:
    """Tell the events of one object while the body runs; silently none where the gateway may not see them."""
    task = asyncio.create_task(_events(api, uid, observe, after))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _events(api: ApiServer, uid: str, observe: Callable[[Event], None], after: float) -> None:
    await asyncio.sleep(after)
    query = {"watch": "true", "fieldSelector": f"involvedObject.uid={uid}", "timeoutSeconds": "600"}
    with contextlib.suppress(GateError, msgspec.DecodeError):
        async with api.stream(api.path("events"), query, 600.0) as lines:
            async for line in lines:
                reported = _line.decode(line)
                if reported.type in ("ADDED", "MODIFIED"):
                    observe(_event.decode(reported.object))
