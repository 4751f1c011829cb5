"""One WebSocket: the attach frame, then bytes and frames in both directions until the session or the socket ends."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import structlog
from aiohttp import WSMsgType, web

from webshim.one_time_tokens import OneTimeTokens
from webshim.output import Start
from webshim.principal import Principal
from webshim.protocol import (
    BINARY_BYTES,
    INPUT_STEP,
    SNAPSHOT_EVERY,
    SNAPSHOT_PAUSE,
    SUBPROTOCOL,
    TEXT_BYTES,
    WINDOW_HIGH,
    Ack,
    Attach,
    Broken,
    Close,
    Ping,
    Resize,
    Snapshot,
    Title,
    encode,
    parse,
)
from webshim.session import WebSession
from webshim.sessions import Sessions
from webshim.websocket import CLOSE_SECONDS, WebSocket

ATTACH_SECONDS = 10.0
PING_SECONDS = 25.0
# Size of one message. The buffers of the network below keep the connection busy meanwhile.
SEND_BYTES = 32 * 1024

log = structlog.get_logger("sshgate.web")


@dataclass(frozen=True, slots=True)
class Ticket:
    """The right to attach one socket to one session."""

    user: str
    session: str


class Socket:
    """The server's end of a WebSocket: a ``session.Viewer``. ``run`` serves it from the upgrade to the close."""

    def __init__(self, principal: Principal, source: str, sessions: Sessions, tickets: OneTimeTokens[Ticket]) -> None:
        self.visitor = principal
        self.source = source
        self.tab = ""
        self.acked = 0
        self.ended = ""
        """The close code and reason, for the operator; empty while the socket is open."""
        self._sessions = sessions
        self._tickets = tickets
        self._session: WebSession | None = None
        self._websocket = WebSocket(
            protocols=(SUBPROTOCOL,), heartbeat=PING_SECONDS, max_msg_size=TEXT_BYTES, compress=False,
            timeout=CLOSE_SECONDS,
        )  # fmt: skip
        self._sent = 0
        self._began = 0
        self._told_taken = 0
        self._told_state = ""
        self._news: deque[str] = deque()
        self._more = asyncio.Event()
        self._ended: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        self._asked_at = -SNAPSHOT_PAUSE
        self._asking: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Socket {self.visitor.user}, sent {self._sent}, acked {self.acked}, {len(self._news)} waiting>"

    # --- session.Viewer ---

    def wake(self) -> None:
        """See ``session.Viewer``."""
        self._more.set()

    def end(self, code: int, reason: str) -> None:
        """See ``session.Viewer``."""
        if not self._ended.done():
            self._ended.set_result((code, reason))

    def send(self, text: str) -> None:
        """Queue a text frame. It is sent before further output."""
        self._news.append(text)
        self._more.set()

    # --- from the upgrade to the close ---

    async def run(self, request: web.Request) -> web.WebSocketResponse:
        """Perform the upgrade, and serve the socket until it is closed. The caller has authenticated the request.

        The session stays, detached, when the socket ends. If cancelled, the socket is closed too.
        """
        await self._websocket.prepare(request)
        code, reason, error = Close.BROKEN, "", ""
        try:
            code, reason = await self._serve()
        except Broken as broken:
            code, reason, error = broken.close, str(broken), broken.code
        except Exception:
            log.exception("web.socket.broken", user=self.visitor.user)
        finally:
            if self._session is not None:
                self._session.detach(self)
            if self._asking is not None:
                self._asking.cancel()
            await self._close(request, code, reason, error)
        return self._websocket

    async def _serve(self) -> tuple[int, str]:
        session, start = await self._attached()
        self._session = session
        try:
            reading = asyncio.create_task(self._read(session))
            writing = asyncio.create_task(self._write(session, start))
            ends: set[asyncio.Future[Any]] = {reading, writing, self._ended}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (reading, writing):
                task.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)
        if self._ended.done():
            return self._ended.result()
        for task in (reading, writing):
            if not task.cancelled() and (error := task.exception()) is not None:
                if isinstance(error, ConnectionError):
                    return Close.ENDED, "gone"
                raise error
        return Close.ENDED, ""

    async def _close(self, request: web.Request, code: int, reason: str, error: str) -> None:
        websocket = self._websocket
        self.ended = f"{code} {reason}".rstrip()
        try:
            async with asyncio.timeout(CLOSE_SECONDS * 2):
                if error and not websocket.closed:
                    await websocket.send_str(encode("error", code=error, message=reason))
                # RFC 6455 section 5.5: a close frame has 125 bytes, two of them the code.
                await websocket.close(code=code, message=reason.encode()[:120])
        except (TimeoutError, ConnectionError, RuntimeError):
            if request.transport is not None:
                request.transport.abort()

    # --- the first frame ---

    async def _attached(self) -> tuple[WebSession, Start]:
        try:
            message = await self._websocket.receive(ATTACH_SECONDS)
        except TimeoutError:
            raise Broken("no attach frame came in time", "late", Close.LATE) from None
        if message.type is WSMsgType.BINARY:
            raise Broken("the first frame must be attach")
        if message.type is not WSMsgType.TEXT:
            raise Broken("gone", "gone", Close.ENDED)
        if self._ended.done():
            # The login has ended meanwhile: the socket must not start a session or take one over.
            code, reason = self._ended.result()
            raise Broken(reason, "ended", code)
        frame = parse(message.data)
        if not isinstance(frame, Attach):
            raise Broken("the first frame must be attach")
        ticket = self._tickets.take(frame.ticket)
        user = self.visitor.user
        session = self._sessions.get(user, frame.session)
        if session is None or ticket != Ticket(user, session.id):
            raise Broken("there is no such session, or its ticket is wrong, used or old", "not_found", Close.NOT_FOUND)
        self.tab = frame.tab
        start = session.attach(self, frame)
        self._began = session.received
        self._sent = start.offset
        resumed = start.snapshot is None
        self.send(encode(
            "hello", session=session.id, state=session.state, start="resume" if resumed else "snapshot",
            offset=start.offset, until=session.output.end, cols=session.size.columns, rows=session.size.rows,
            profile=session.profile, name=session.identity.login.name,
        ))  # fmt: skip
        self._told_state = session.state
        if (snapshot := start.snapshot) is not None:
            self.send(encode(
                "snapshot", offset=snapshot.offset, cols=snapshot.cols, rows=snapshot.rows, data=snapshot.data
            ))  # fmt: skip
        self._sessions.begin(session)
        return session, start

    # --- from the page ---

    async def _read(self, session: WebSession) -> None:
        async for message in self._websocket:
            began, reply = time.monotonic(), None
            if message.type is WSMsgType.BINARY:
                if len(message.data) > BINARY_BYTES:
                    raise Broken(f"a frame of input holds at most {BINARY_BYTES} bytes", close=Close.TOO_BIG)
                session.type(message.data)
            elif message.type is WSMsgType.TEXT:
                reply = self._obey(session, message.data)
            await self._websocket.spent(time.monotonic() - began)
            if reply:
                # Wait for the reply to be sent: a client that does not read its replies is not read from either.
                await self._websocket.send_str(reply)

    def _obey(self, session: WebSession, text: str) -> str | None:
        """Carry out a frame and return the reply, if it has one."""
        match parse(text):
            case Ack(offset):
                self._acknowledge(session, offset)
            case Resize(columns, rows):
                session.resize(columns, rows)
            case Snapshot() as snapshot:
                if snapshot.offset > self._sent:
                    raise Broken("a snapshot of output that was not sent")
                session.keep(snapshot)
            case Ping(id):
                return encode("pong", id=id)
            case Title(title):
                session.title = title
            case Attach():
                raise Broken("attach is the first frame, once")
        return None

    def _acknowledge(self, session: WebSession, offset: int) -> None:
        if offset > self._sent:
            raise Broken("an ack of output that was not sent")
        if offset <= self.acked:
            return
        self.acked = offset
        session.acknowledged()
        self._more.set()
        if self._asking is None and offset - session.output.snapshot_offset >= SNAPSHOT_EVERY:
            wait = self._asked_at + SNAPSHOT_PAUSE - time.monotonic()
            self._asking = asyncio.get_running_loop().call_later(max(0.0, wait), self._ask, session)

    def _ask(self, session: WebSession) -> None:
        self._asking = None
        self._asked_at = time.monotonic()
        self.send(encode("snapshot_wanted"))

    # --- to the page ---

    async def _write(self, session: WebSession, start: Start) -> None:
        send = self._websocket.send_bytes
        output = session.output
        while True:
            while self._news:
                await self._websocket.send_str(self._news.popleft())
            most = min(SEND_BYTES, self.acked + WINDOW_HIGH - self._sent)
            if most > 0 and (data := output.read(self._sent, most)):
                self._sent += len(data)
                await send(data)
                continue
            self._more.clear()
            if await self._tell_changes(session):
                return
            if not self._news and (most <= 0 or self._sent == output.end):
                await self._more.wait()

    async def _tell_changes(self, session: WebSession) -> bool:
        """Send changes of the session itself; true after sending its end."""
        taken = session.taken - self._began
        if taken - self._told_taken >= INPUT_STEP:
            self._told_taken = taken
            await self._websocket.send_str(encode("taken", offset=taken))
        state = session.state
        if state != self._told_state and state == "running":
            self._told_state = state
            await self._websocket.send_str(encode("state", state=state))
        if (ending := session.ending) is None or self._sent < session.output.end:
            return False
        await self._websocket.send_str(encode("exit", code=ending.code, signal=ending.signal, reason=ending.reason))
        return True
