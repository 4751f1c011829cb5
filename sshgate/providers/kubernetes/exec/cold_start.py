"""Enters a pod that was just created: retries the exec until it works or the pod's status shows that it never will."""

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
from sshgate.sandbox.interfaces import Notice
from sshgate.stream.interfaces import Lost
from sshgate.stream.tasks import cancel, within

# Pauses between attempts, seconds: an attempt takes 10-25 ms, a pod starts in about 350 ms.
SHORTEST_PAUSE = 0.02
LONGEST_PAUSE = 0.5
PAUSE_GROWTH = 1.15
# A container that runs but could not be entered for this long is given up.
ENTRY_SECONDS = 8.0
# If the exec into a running pod is rejected as invalid for this long, an admission rule denies it.
REFUSED_SECONDS = 2.0
# While the watch does not show that the pod starts, an attempt is made this often all the same; less often where its
# program would not be accepted.
BLIND_SECONDS = 1.0
REFUSED_BLIND_SECONDS = 4.0
# A program without output for this long, in a running container, is taken as started.
SILENT_SECONDS = 0.3
# A start that takes longer than this watches the pod's events; most are faster.
EVENTS_AFTER = 0.5

_line = msgspec.json.Decoder(WatchLine)
_event = msgspec.json.Decoder(Event)


class Starting(Protocol):
    """What ``ColdStart`` needs of the pod."""

    @property
    def phase(self) -> PodPhase:
        """How far the pod is, as the watch shows it."""
        ...

    def changed(self) -> asyncio.Future[None]:
        """A future that is done at the next change of ``phase``. Cancelling it affects no other waiter."""


class StartupFailed(StartFailed):
    """The pod can never be entered and should be deleted."""


class ColdStart:
    """One cold start: from a pod that the API server has accepted to a program in it, or an error with the reason."""

    def __init__(
        self,
        pod: Starting,
        attempt: Callable[[], Awaitable[ExecProcess]],
        abandon: Callable[[ExecProcess], None],
        limits: ProfileLimits,
        api_seconds: float,
        notice: Notice,
        early: bool = True,
    ) -> None:
        """
        Args:
            pod: The pod's phase, kept current by the caller.
            attempt: Starts the exec once.
            limits: The profile's limits of a start.
            api_seconds: How long the API server may be unavailable.
            notice: Called with progress texts.
            early: Accept a program that was started before the watch showed that the pod runs.
        """
        self._pod = pod
        self._attempt = attempt
        self._abandon = abandon
        self._limits = limits
        self._api_seconds = api_seconds
        self._notice = notice
        self._early = early
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock()
        self._since: dict[str, float] = {}
        self._final: str | None = None
        self._errors = StartupErrors()

    async def run(self) -> ExecProcess:
        """Retry until the program runs. When it raises or is cancelled, no exec is left behind.

        Raises:
            StartupFailed: The pod will never be entered, or not within ``limits.start``.
            ProgramMissing: The program is not in the image.
            StartFailed: It is there but cannot be executed (status 126), or the exec was refused.
            Unavailable: The API server did not answer for ``api_seconds``.
        """
        pause = SHORTEST_PAUSE
        errors: tuple[str, str] | None = None
        while True:
            now = self._pod.phase
            if (now.phase, now.reason) != errors:
                errors = (now.phase, now.reason)
                self._notice("starting" if now.phase == "running" else waiting(now.reason))
            self._give_up(now)
            ready = now.phase == "running" or (now.phase == "starting" and self._early)
            if ready or self._blind():
                process = await self._try()
                if process is not None and (ready or self._early):
                    return process
                if process is not None:
                    self._abandon(process)
            await within(pause if now.phase != "running" else SHORTEST_PAUSE, self._pod.changed())
            pause = min(pause * PAUSE_GROWTH, LONGEST_PAUSE)

    def observe(self, event: Event, image: str) -> None:
        """Take note of an event of the pod: report progress, and remember what is wrong."""
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
            # Usually the API server does not know the pod's node yet. If the pod runs, it is a refusal.
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
            self._abandon(process)
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
        """Whether the exec has started a program. The node refuses within 20 ms or so, unless it is very busy."""
        while not await process.begun(SILENT_SECONDS):
            if self._pod.phase.phase == "running":
                return True  # it runs and has no output yet
            if self._pod.phase.over:
                return False
        return not isinstance(process.outcome, Lost)

    def _blind(self) -> bool:
        """True every ``BLIND_SECONDS`` without progress: an attempt shows whether the API server answers at all."""
        if self._lasting("no news") < (BLIND_SECONDS if self._early else REFUSED_BLIND_SECONDS):
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
        """Seconds since this condition was first observed."""
        now = self._clock()
        return now - self._since.setdefault(what, now)


def _not_executable(reason: str) -> StartFailed:
    failure = StartFailed(reason)
    failure.status = 126
    return failure


@asynccontextmanager
async def events(api: ApiServer, uid: str, observe: Callable[[Event], None]) -> AsyncIterator[None]:
    """Report the events of one object to ``observe`` while the body runs, beginning after ``EVENTS_AFTER`` seconds.

    Best effort: errors, such as a role without the right to watch events, are ignored.
    """
    task = asyncio.create_task(_events(api, uid, observe))
    try:
        yield
    finally:
        await cancel(task)


async def _events(api: ApiServer, uid: str, observe: Callable[[Event], None]) -> None:
    await asyncio.sleep(EVENTS_AFTER)
    query = {"watch": "true", "fieldSelector": f"involvedObject.uid={uid}", "timeoutSeconds": "600"}
    with contextlib.suppress(GateError, msgspec.DecodeError):
        async with api.stream(api.path("events"), query, 600.0) as lines:
            async for line in lines:
                reported = _line.decode(line)
                if reported.type in ("ADDED", "MODIFIED"):
                    observe(_event.decode(reported.object))
