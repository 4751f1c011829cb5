"""``GET api/events``: a stream of a user's sessions, sent at each change, so that pages need not ask for them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from weakref import WeakValueDictionary

import msgspec
from aiohttp import web

from sshgate.access.connections import take_one
from sshgate.stream.tasks import Event, TaskSet, within
from sshgate.stream.turns import Budget
from webshim.connection import connection_of
from webshim.responses import Refusal
from webshim.state import WebState

# A browser has one stream for all its tabs.
STREAMS_PER_USER = 20
# Changes within this time are sent as one.
PAUSE_SECONDS = 0.3
# So often something is sent in any case: proxies end what is silent.
SILENT_SECONDS = 20.0
# A client that takes nothing for this long is given up.
STALLED_SECONDS = 20.0
# What a browser waits before it connects again, in milliseconds.
HEAD = b"retry: 3000\n\n"


class SessionEvents:
    """The handler of the route. All streams end when the gateway drains; one ends with its login."""

    def __init__(self, state: WebState) -> None:
        self._state = state
        self._open: Counter[str] = Counter()
        self._lists: WeakValueDictionary[str, _List] = WeakValueDictionary()

    def __repr__(self) -> str:
        return f"<SessionEvents {self._open.total()} streams>"

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Send the list of sessions, and again after each change, until the client leaves. Raises ``Refusal``."""
        state = self._state
        principal = await state.principal(request)
        state.check_open()
        user = principal.user
        if self._open[user] >= STREAMS_PER_USER:
            raise Refusal(429, "limit", f"you have {STREAMS_PER_USER} streams of events open; close some of them.")
        connection = connection_of(request)
        # As for WebSockets: streams are counted by user.
        connection.upgraded()
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        response.force_close()
        self._open[user] += 1
        with state.sessions.watched(user) as changed:
            stream, tasks = _Stream(changed), TaskSet()
            tasks.start(stream.cut_at(connection.lost))
            try:
                with state.transferring(stream.cut, principal, state.source(request)):
                    await response.prepare(request)
                    await self._serve(user, stream, response, connection.budget)
            except TimeoutError:
                if request.transport is not None:
                    request.transport.abort()
            except ConnectionError:
                pass
            finally:
                take_one(self._open, user)
                await tasks.cancel()
        return response

    async def _serve(self, user: str, stream: _Stream, response: web.StreamResponse, budget: Budget) -> None:
        sent, shared = b"", self._lists.setdefault(user, _List())
        await _write(response, HEAD)
        while not stream.over and not self._state.draining:
            stream.changed.clear()
            listed = await self._listed(user, shared, budget)
            await _write(response, b":\n\n" if listed == sent else b"event: sessions\ndata: " + listed + b"\n\n")
            sent = listed
            if await within(SILENT_SECONDS, stream.changed.wait()) and not stream.over:
                await asyncio.sleep(PAUSE_SECONDS)

    async def _listed(self, user: str, shared: _List, budget: Budget) -> bytes:
        """Return the list as JSON. One change wakes all streams of a user: the first makes it, the others take it.

        The lock wakes one in each turn of the event loop.
        """
        async with shared.lock:
            # What no change is reported for, such as the last line of output, may be another after a while.
            at = self._state.sessions.changes(user), time.monotonic() // SILENT_SECONDS
            if shared.at != at:
                described = await self._state.sessions.described(user, budget)
                shared.text = msgspec.json.encode({"user": user, "sessions": described})
                shared.at = at
            return shared.text


class _List:
    """The list that all streams of a user send. ``at``: the change and the time as of which ``text`` was made."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.text = b""
        self.at: tuple[int, float] | None = None


class _Stream:
    """One stream, which ends with its login."""

    def __init__(self, changed: Event) -> None:
        self.changed = changed
        self.over = False

    def cut(self) -> None:
        self.over = True
        self.changed.set()

    async def cut_at(self, lost: Event) -> None:
        """Cut when the connection is lost."""
        await lost.wait()
        self.cut()


async def _write(response: web.StreamResponse, data: bytes) -> None:
    """Raises ``TimeoutError`` for a client that does not read, and ``ConnectionError`` for one that has left."""
    async with asyncio.timeout(STALLED_SECONDS):
        await response.write(data)
