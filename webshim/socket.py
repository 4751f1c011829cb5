"""One WebSocket: the attach frame, then bytes and frames in both directions until the session or the socket ends."""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, cast

import structlog
from aiohttp import WSCloseCode, WSMessage, WSMsgType, web
from aiohttp.abc import AbstractStreamWriter

from sshgate.stream.tasks import Event, first_of
from webshim.connection import Connection
from webshim.credentials import OneTimeTokens, Principal
from webshim.output import Start
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

ATTACH_SECONDS = 10.0
PING_SECONDS = 25.0
# Time for a peer to answer a close frame and to read the last bytes; after that the connection is aborted.
CLOSE_SECONDS = 2.0
# Charged to the budget for each ping and pong.
PING_COST = 0.00005
# Size of one message. The buffers of the network below keep the connection busy meanwhile.
SEND_BYTES = 32 * 1024

_UNREADABLE = (WSCloseCode.PROTOCOL_ERROR, WSCloseCode.INVALID_TEXT, WSCloseCode.MESSAGE_TOO_BIG)

log = structlog.get_logger("sshgate.web")

_Ending = tuple[int, str, str]
"""The close code, its reason, and the code of the error frame; empty: there is none."""


class WebSocket(web.WebSocketResponse):
    """aiohttp's WebSocket, except that its close frame also reaches a peer that is still sending a message.

    Pings are answered in ``receive`` and charged to the connection's budget.
    """

    _connection: Connection | None = None
    answered: Event
    """Set by each message and pong."""

    def __init__(self, **options: Any) -> None:
        super().__init__(autoping=False, **options)
        self.answered = Event()

    async def receive(self, timeout: float | None = None) -> WSMessage:
        """Return the next message that is not a ping or pong. Raises ``TimeoutError`` after ``timeout`` seconds."""
        if timeout is not None:
            async with asyncio.timeout(timeout):
                return await self.receive()
        while (message := await super().receive()).type in (WSMsgType.PING, WSMsgType.PONG):
            if message.type is WSMsgType.PING:
                await self.pong(message.data)
            self.answered.set()
            await self.spent(PING_COST)
        self.answered.set()
        return message

    async def spent(self, seconds: float) -> None:
        """Charge the connection's budget for work that a message caused; waits until there is budget again."""
        if self._connection is not None:
            await self._connection.budget.charge_and_wait(seconds)

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        self._connection = cast(Connection, request.protocol)
        return await super().prepare(request)

    async def close(self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True) -> bool:
        """Close the socket. aiohttp calls this too, when it cannot parse what it reads."""
        # aiohttp calls this without a message when it cannot parse what it reads, and would close the connection at
        # once. The kernel would answer later data with a reset, and the peer would lose the unread close frame.
        if code in _UNREADABLE and not message and not self.closed and self._connection is not None:
            await self._send_close(self._connection, code)
        return await super().close(code=code, message=message, drain=drain)

    async def _send_close(self, connection: Connection, code: int) -> None:
        """Send the close frame, then discard what the peer sends until it has closed, at most ``CLOSE_SECONDS``."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.send_frame(code.to_bytes(2, "big"), WSMsgType.CLOSE)
                connection.resume_reading()
                transport: Any = connection.transport
                if transport is not None and transport.can_write_eof():
                    transport.write_eof()
                await connection.lost.wait()
        except (TimeoutError, ConnectionError, RuntimeError):
            return


@dataclass(frozen=True, slots=True)
class Ticket:
    """The right to attach one socket to one session."""

    user: str
    session: str


class SessionSocket:
    """The server's end of a WebSocket: a ``session.Viewer``. ``run`` serves it from the upgrade to the close."""

    def __init__(self, principal: Principal, source: str, largest: int = TEXT_BYTES) -> None:
        """``largest``: bytes of a message at most."""
        self.principal = principal
        self.source = source
        self.tab = ""
        self.acked = 0
        self.error = ""
        """The code of the error frame that says why the server ends the socket; empty: none does."""
        self.ended = ""
        """The close code and reason, for the operator; empty while the socket is open."""
        self._session: WebSession | None = None
        self._websocket = WebSocket(
            protocols=(SUBPROTOCOL,), heartbeat=PING_SECONDS, max_msg_size=largest, compress=False,
            timeout=CLOSE_SECONDS,
        )  # fmt: skip
        self._sent = 0
        self._began = 0
        self._sent_taken = 0
        self._sent_state = ""
        self._sent_notice = ""
        self._sent_watchers: tuple[str, ...] = ()
        self._restarts = 0
        self._replayed = 0
        self._frames: list[str] = []
        self._more = Event()
        self._ended: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        self._snapshot_asked_at = -SNAPSHOT_PAUSE
        self._snapshot_timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Socket {self.principal.user}, sent {self._sent}, acked {self.acked}, {len(self._frames)} waiting>"

    # --- session.Viewer ---

    def wake(self) -> None:
        self._more.set()

    async def alive(self) -> bool:
        """See ``session.Viewer``. A browser answers a ping by itself."""
        self._websocket.answered.clear()
        try:
            await self._websocket.ping()
        except (ConnectionError, RuntimeError):
            return False
        await self._websocket.answered.wait()
        return True

    def end(self, code: int, reason: str) -> None:
        if not self._ended.done():
            self._ended.set_result((code, reason))

    def send(self, text: str) -> None:
        """Queue a text frame. It is sent before further output."""
        self._frames.append(text)
        self._more.set()

    # --- from the upgrade to the close ---

    async def run(self, request: web.Request) -> web.WebSocketResponse:
        """Perform the upgrade, and serve the socket until it is closed. The caller has authenticated the request.

        The session stays, detached, when the socket ends. If cancelled, the socket is closed too.
        """
        await self._websocket.prepare(request)
        code, reason, error = Close.BROKEN, "", ""
        try:
            code, reason, error = await self._serve()
        except Broken as broken:
            code, reason, error = broken.close, str(broken), broken.code
        except Exception:
            log.exception("web.socket.broken", user=self.principal.user)
        finally:
            if self._session is not None:
                self._session.detach(self)
            if self._snapshot_timer is not None:
                self._snapshot_timer.cancel()
            await self._close(request, code, reason, error)
        return self._websocket

    async def _serve(self) -> _Ending:
        session, start = await self._attached()
        self._session = session
        _, ending = await first_of(
            self._wait_ended(), _ending(self._read(session)), _ending(self._write(session, start))
        )
        return cast(_Ending, ending)

    async def _wait_ended(self) -> _Ending:
        return *await asyncio.shield(self._ended), self.error

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

    async def _first_frame(self) -> str:
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
        return str(message.data)

    async def _attached(self) -> tuple[WebSession, Start]:
        """Take the first frame, and attach to the session that it names. Raises ``Broken``."""
        raise NotImplementedError

    def _greet(self, session: WebSession, start: Start, missed: dict[str, object] | None = None) -> None:
        """Queue what the page begins with, also where the output begins anew."""
        self._sent = start.offset
        self._restarts = session.output.restarts
        self._replayed = session.replayed
        self._sent_state = session.state
        self._sent_watchers = ()  # the page begins anew with them too
        resumed = start.snapshot is None
        self.send(encode(
            "hello", session=session.id, state=session.state, start="resume" if resumed else "snapshot",
            offset=start.offset, until=session.until, cols=session.size.columns, rows=session.size.rows,
            profile=session.profile, name=session.identity.login.name, held=session.held,
            attention=missed,
        ))  # fmt: skip
        if (snapshot := start.snapshot) is not None:
            screen = {"screen": b64encode(start.screen).decode()} if start.screen else {}
            self.send(encode(
                "snapshot", offset=snapshot.offset, cols=snapshot.cols, rows=snapshot.rows, data=snapshot.data, **screen
            ))  # fmt: skip

    # --- from the page ---

    async def _read(self, session: WebSession) -> None:
        async for message in self._websocket:
            began, reply = time.monotonic(), None
            if message.type is WSMsgType.BINARY:
                if len(message.data) > BINARY_BYTES:
                    raise Broken(f"a frame of input holds at most {BINARY_BYTES} bytes", close=Close.TOO_BIG)
                self._type(session, message.data)
            elif message.type is WSMsgType.TEXT:
                reply = self._obey(session, message.data)
            await self._websocket.spent(time.monotonic() - began)
            if reply:
                # Wait for the reply to be sent: a client that does not read its replies is not read from either.
                await self._websocket.send_str(reply)

    def _type(self, session: WebSession, data: bytes) -> None:
        session.type(data)

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
                session.output.keep(snapshot)
            case Ping(id):
                return encode("pong", id=id)
            case Title(title):
                session.named(title)
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
        if self._snapshot_timer is None and offset - session.output.snapshot_offset >= SNAPSHOT_EVERY:
            wait = self._snapshot_asked_at + SNAPSHOT_PAUSE - time.monotonic()
            self._snapshot_timer = asyncio.get_running_loop().call_later(max(0.0, wait), self._ask_for_snapshot)

    def _ask_for_snapshot(self) -> None:
        self._snapshot_timer = None
        self._snapshot_asked_at = time.monotonic()
        self.send(encode("snapshot_wanted"))

    # --- to the page ---

    async def _write(self, session: WebSession, start: Start) -> None:
        send = self._websocket.send_bytes
        output = session.output
        while True:
            if self._frames:
                # Before anything new is queued: a resident may send screens faster than they are sent here.
                await self._websocket.send_str(self._frames.pop(0))
                continue
            if self._restarts != output.restarts:
                began = time.monotonic()
                start = output.begin(None, session.size.columns, session.size.rows)
                self.acked = start.offset
                session.acknowledged()
                self._greet(session, start)
                await self._websocket.spent(time.monotonic() - began)
                continue
            if self._replayed != session.replayed:
                self._replayed = session.replayed
                await self._websocket.send_str(encode("replay", until=self._replayed))
                continue
            most = min(SEND_BYTES, self.acked + WINDOW_HIGH - self._sent)
            if self._sent < self._replayed:
                most = min(most, self._replayed - self._sent)  # what is new begins a message, and is answered
            if most > 0 and (data := output.read(self._sent, most)):
                self._sent += len(data)
                await send(data)
                continue
            self._more.clear()
            if await self._send_changes(session):
                return
            if self._restarts == output.restarts and not self._frames and (most <= 0 or self._sent == output.end):
                await self._more.wait()

    async def _send_changes(self, session: WebSession) -> bool:
        """Send changes of the session itself; true after sending its end."""
        taken = session.taken - self._began
        if taken - self._sent_taken >= INPUT_STEP:
            self._sent_taken = taken
            await self._websocket.send_str(encode("taken", offset=taken))
        state = session.state
        if state != self._sent_state and state == "running":
            self._sent_state = state
            await self._websocket.send_str(encode("state", state=state, held=session.held))
        if session.notice != self._sent_notice:
            self._sent_notice = session.notice
            await self._websocket.send_str(encode("notice", text=session.notice))
        if session.watchers != self._sent_watchers:
            self._sent_watchers = session.watchers
            await self._websocket.send_str(encode("watchers", sources=session.watchers))
        if (ending := session.ending) is None or self._sent < session.output.end:
            return False
        await self._websocket.send_str(encode("exit", **ending.summary()))
        return True


class Socket(SessionSocket):
    """The socket of a page whose user has logged in."""

    def __init__(self, principal: Principal, source: str, sessions: Sessions, tickets: OneTimeTokens[Ticket]) -> None:
        super().__init__(principal, source)
        self._sessions = sessions
        self._tickets = tickets

    async def _attached(self) -> tuple[WebSession, Start]:
        frame = parse(await self._first_frame())
        if not isinstance(frame, Attach):
            raise Broken("the first frame must be attach")
        ticket = self._tickets.take(frame.ticket)
        user = self.principal.user
        session = self._sessions.get(user, frame.session)
        if session is None or ticket != Ticket(user, session.id):
            raise Broken("there is no such session, or its ticket is wrong, used or old", "not_found", Close.NOT_FOUND)
        self.tab = frame.tab
        missed = session.attention.summary()  # attaching forgets it
        start = session.attach(self, frame)
        self._began = session.received
        self._greet(session, start, missed)
        if start.snapshot is None and session.output.blank:
            self.send(encode("snapshot_wanted"))
        self._sessions.begin(session)
        return session, start


async def _ending(work: Coroutine[Any, Any, None]) -> _Ending:
    """Run one direction of a socket and return how it has ended. Other errors than the peer's are raised."""
    try:
        await work
    except ConnectionError:
        return Close.ENDED, "gone", ""
    except Broken as broken:
        return broken.close, str(broken), broken.code
    return Close.ENDED, "", ""
