"""Keeps a local copy of objects of the cluster: list once, then watch, and list again whenever in doubt."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any, Generic, TypeVar

import msgspec
import structlog

from sshgate.errors import GateError
from sshgate.providers.kubernetes.api import errors as failures
from sshgate.providers.kubernetes.api.client import ApiServer, decode
from sshgate.providers.kubernetes.api.objects import Listing, Object, Pod, Status, WatchLine
from sshgate.stream.tasks import TaskSet
from sshgate.stream.turns import budget

T = TypeVar("T", bound=Object)

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
_status = msgspec.json.Decoder(Status)


class Reflector(Generic[T]):
    """A cache of the objects that match a query (``known``, by name), with a callback for every change.

    ``observe(old, new)`` gets ``None`` as ``old`` for a new object and as ``new`` for a deleted one. It is called from
    the reflector's task, in order, never twice for the same version, and must not block. Changes missed while the
    watch was down are found by the next list and reported the same way.
    """

    def __init__(
        self,
        api: ApiServer,
        path: str,
        query: Mapping[str, str],
        kind: type[T],
        observe: Callable[[T | None, T | None], None],
        jitter: Callable[[], float] = random.random,
        listed: Callable[[Set[str], str], None] = lambda uids, version: None,
    ) -> None:
        """
        Args:
            path: URL path of the collection.
            query: Query parameters of both list and watch.
            kind: What to decode each object as.
            observe: See the class.
            jitter: Returns a number from 0 to 1, for the back-off.
            listed: Called after each list, and ``observe`` for what it changed, with the uids in it and its version.
        """
        self.known: dict[str, T] = {}
        self._api = api
        self._path = path
        self._query = dict(query)
        self._observe = observe
        self._listed = listed
        self._jitter = jitter
        self._listing: msgspec.json.Decoder[Listing[T]] = msgspec.json.Decoder(Listing[kind])  # type: ignore[valid-type]
        self._object: msgspec.json.Decoder[T] = msgspec.json.Decoder(kind)
        self._version = ""
        self._synced = asyncio.Event()
        self._tasks = TaskSet()
        self.error: GateError | None = None
        """Why the watch is down; ``None`` while it runs."""

    def __repr__(self) -> str:
        state = f"down: {self.error}" if self.error else "watching" if self._synced.is_set() else "starting"
        return f"<Reflector {self._path} {len(self.known)} known, {state}>"

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
                log.exception("watch.broken", path=self._path)
            if clock() - began >= SHORT_SECONDS:
                delay = FIRST_DELAY
                if self._synced.is_set():
                    continue
            # Also after a watch that ended early without an error: without a pause this would be a busy loop.
            await asyncio.sleep(delay * (0.5 + self._jitter()))
            delay = min(delay * 2, LONGEST_DELAY)

    async def _list(self) -> None:
        listing = await self._api.list_all(self._listing, self._path, self._query, "list sandboxes")
        await budget().run(self._compare({_name(item): item for item in listing.items or ()}))
        self._version = listing.metadata.resource_version
        self._listed({_meta(item).uid for item in self.known.values()}, self._version)
        self._synced.set()

    def _compare(self, found: dict[str, T]) -> Iterator[None]:
        """Report what has changed since the last line of the watch; one step for each object."""
        for name in [name for name in self.known if name not in found]:
            self._notify(name, None)
            yield
        for name, item in found.items():
            self._notify(name, item)
            yield

    async def _watch(self) -> None:
        query = {
            **self._query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        async with self._api.stream(self._path, query, SILENCE_SECONDS) as lines:
            async for line in lines:
                self._take(decode(_line, line))

    def _take(self, line: WatchLine) -> None:
        if line.type == "ERROR":
            status = decode(_status, line.object)
            raise failures.failure(status.code or 500, status, "watch sandboxes")
        item = decode(self._object, line.object)
        if line.type != "BOOKMARK":
            self._notify(_name(item), None if line.type == "DELETED" else item, item)
        self._version = _meta(item).resource_version

    def _notify(self, name: str, item: T | None, last: T | None = None) -> None:
        old = self.known.get(name)
        if item is None:
            if self.known.pop(name, None) is not None:
                # A DELETED line holds the object's last state, which shows why it went.
                self._observe(last or old, None)
            return
        if old is not None and _meta(old).uid != _meta(item).uid:
            self._observe(old, None)
            old = None
        if old is None or _meta(old).resource_version != _meta(item).resource_version:
            self.known[name] = item
            self._observe(old, item)


def pods(
    api: ApiServer,
    selector: str,
    observe: Callable[[Pod | None, Pod | None], None],
    listed: Callable[[Set[str], str], None] = lambda uids, version: None,
) -> Reflector[Pod]:
    """A reflector of the pods that match a label selector; see ``Reflector``."""
    return Reflector(api, api.path("pods"), {"labelSelector": selector}, Pod, observe, listed=listed)


def _meta(item: Any) -> Any:
    return item.metadata


def _name(item: Any) -> str:
    return str(item.metadata.name)
