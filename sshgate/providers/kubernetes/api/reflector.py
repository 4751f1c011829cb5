"""Keeps a local copy of the cluster's pods: list once, then watch, and list again whenever in doubt."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Set

import msgspec
import structlog

from sshgate.errors import GateError
from sshgate.providers.kubernetes.api import errors as failures
from sshgate.providers.kubernetes.api.client import ApiServer, decode
from sshgate.providers.kubernetes.api.objects import Pod, Status, WatchLine
from sshgate.stream.tasks import TaskSet
from sshgate.stream.turns import budget

# The server ends a watch after this many seconds; the reflector resumes at the same version.
WATCH_SECONDS = 290
# Bookmarks arrive about once a minute: a watch without a line for this long is dead.
SILENCE_SECONDS = 150.0
# A watch that ends sooner counts as failed: the next one waits for the back-off.
SHORT_SECONDS = 5.0
FIRST_DELAY = 0.2
LONGEST_DELAY = 15.0

log = structlog.get_logger("sshgate.sandbox.kubernetes")

_line = msgspec.json.Decoder(WatchLine)
_pod = msgspec.json.Decoder(Pod)
_status = msgspec.json.Decoder(Status)


class Reflector:
    """A cache of the pods that match a label selector (``known``, by name), with a callback for every change.

    ``observe(old, new)`` gets ``None`` as ``old`` for a new pod and as ``new`` for a deleted one. It is called from
    the reflector's task, in order, never twice for the same version, and must not block. Changes missed while the
    watch was down are found by the next list and reported the same way.

    Args:
        listed: Called after each list, and ``observe`` for what it changed, with the uids in it and its version.
        jitter: Returns a number from 0 to 1, for the back-off.
    """

    def __init__(
        self,
        api: ApiServer,
        selector: str,
        observe: Callable[[Pod | None, Pod | None], None],
        listed: Callable[[Set[str], str], None] = lambda uids, version: None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.known: dict[str, Pod] = {}
        self._api = api
        self._selector = selector
        self._observe = observe
        self._listed = listed
        self._jitter = jitter
        self._version = ""
        self._synced = asyncio.Event()
        self._tasks = TaskSet()
        self.error: GateError | None = None
        """Why the watch is down; ``None`` while it runs."""

    def __repr__(self) -> str:
        state = f"down: {self.error}" if self.error else "watching" if self._synced.is_set() else "starting"
        return f"<Reflector {len(self.known)} known, {state}>"

    async def start(self) -> None:
        """List for the first time and start watching. Raises what the list request raises."""
        await self._list()
        self._tasks.start(self._run())

    async def close(self) -> None:
        """Stop watching."""
        await self._tasks.cancel()

    async def _run(self) -> None:
        clock, delay = asyncio.get_running_loop().time, FIRST_DELAY
        while True:
            began = clock()
            try:
                if not self._synced.is_set():
                    await self._list()
                self.error = None
                await self._watch()
            except failures.Expired:
                self._synced.clear()
            except GateError as error:
                self._synced.clear()
                self.error = error
            except Exception:
                # A bug in `observe`: missing one change is better than to stop watching for good.
                self._synced.clear()
                log.exception("watch.broken")
            if clock() - began >= SHORT_SECONDS:
                delay = FIRST_DELAY
                if self._synced.is_set():
                    continue
            # Also after a watch that ended early without an error: without a pause this would be a busy loop.
            await asyncio.sleep(delay * (0.5 + self._jitter()))
            delay = min(delay * 2, LONGEST_DELAY)

    async def _list(self) -> None:
        listing = await self._api.list_pods(self._selector)
        await budget().run(self._compare({pod.metadata.name: pod for pod in listing.items or ()}))
        self._version = listing.metadata.resource_version
        self._listed({pod.metadata.uid for pod in self.known.values()}, self._version)
        self._synced.set()

    def _compare(self, found: dict[str, Pod]) -> Iterator[None]:
        """Report what has changed since the last line of the watch; one step for each pod."""
        for name in [name for name in self.known if name not in found]:
            self._notify(name, None)
            yield
        for name, pod in found.items():
            self._notify(name, pod)
            yield

    async def _watch(self) -> None:
        query = {
            "labelSelector": self._selector,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        async with self._api.stream(self._api.path("pods"), query, SILENCE_SECONDS) as lines:
            async for line in lines:
                self._take(decode(_line, line))

    def _take(self, line: WatchLine) -> None:
        if line.type == "ERROR":
            status = decode(_status, line.object)
            raise failures.failure(status.code or 500, status, "watch sandboxes")
        pod = decode(_pod, line.object)
        if line.type != "BOOKMARK":
            self._notify(pod.metadata.name, None if line.type == "DELETED" else pod, pod)
        self._version = pod.metadata.resource_version

    def _notify(self, name: str, pod: Pod | None, last: Pod | None = None) -> None:
        old = self.known.get(name)
        if pod is None:
            if self.known.pop(name, None) is not None:
                # A DELETED line holds the pod's last state, which shows why it went.
                self._observe(last or old, None)
            return
        if old is not None and old.metadata.uid != pod.metadata.uid:
            self._observe(old, None)
            old = None
        if old is None or old.metadata.resource_version != pod.metadata.resource_version:
            self.known[name] = pod
            self._observe(old, pod)
