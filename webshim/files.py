"""Files of a session's sandbox: lists, transfers and changes. Each is a shell script run by the session's login."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn
from urllib.parse import quote, unquote_to_bytes

from aiohttp import web
from msgspec import Struct

from sshgate.access.connections import take_one
from sshgate.session.interfaces import Login
from sshgate.stream.interfaces import STDERR, Control, Exited, Lost, Outcome, Request
from sshgate.stream.tasks import Event, TaskSet, within
from sshgate.telemetry.codes import Code
from webshim import directories, fileprograms
from webshim.connection import connection_of
from webshim.credentials import Principal
from webshim.protocol import clean
from webshim.responses import Refusal, answer
from webshim.rest import Nothing, Rest, read_body
from webshim.session import WebSession
from webshim.state import WebState

LONGEST_PATH = 4096
# Bytes of a new name: what file systems have.
LONGEST_NAME = 255
# Entries of a directory that may be left out before a part of its list.
FURTHEST = 1_000_000
# Digits in the size of a file.
LONGEST_NUMBER = 19
AT_A_TIME = 8
AT_A_TIME_PER_USER = 24
# A transfer's script that does nothing for this long is given up, and so is a change that takes this long; and a list
# that is not there after its own time.
STALLED_SECONDS = 120.0
LIST_SECONDS = 30.0
# How much of a script's stderr is kept, and how much of that is shown to the user.
COMPLAINT_BYTES = 2000
COMPLAINT_CHARACTERS = 200


class RenameBody(Struct):
    """The new name: a path as in the query."""

    to: str


class Files:
    """The handlers of ``api/sessions/ID/files``. They raise ``Refusal`` or ``GateError``.

    What they do is aborted when its session or its login ends.
    """

    def __init__(self, state: WebState, rest: Rest) -> None:
        self._state = state
        self._rest = rest
        self._busy: Counter[str] = Counter()
        self._busy_users: Counter[str] = Counter()

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Download a file, or a directory as a tar archive, or list a part of a directory."""
        principal = await self._state.principal(request)
        session = self._rest.own_of(principal, request)
        if request.query.get("list") == "1":
            return await self._list(request, principal, session)
        packed = request.query.get("as") == "tar"
        path = _directory(request) if packed else _path(request)
        name = f"{path.rpartition('/')[2].strip('.') or 'files'}.tar" if packed else path
        download = _Download(request, name, packed)
        with self._state.transferring(download.cut, principal, self._state.source(request)):
            await self._run(session, download, path, fileprograms.PACK if packed else fileprograms.READ)
        answered = await download.completed()
        self._respond(session, "download", path, 0, download.sent)
        return answered

    async def _list(self, request: web.Request, principal: Principal, session: WebSession) -> web.Response:
        path, start = _directory(request), request.query.get("from", "0")
        if not start.isdecimal() or len(start) > 9 or int(start) > FURTHEST:
            raise Refusal(400, "request", "from is the number of entries to leave out.")
        listing = _Listing(request)
        with self._state.transferring(listing.cut, principal, self._state.source(request)):
            script = fileprograms.HERE + directories.LIST
            await self._run(session, listing, path, script, f=start, n=str(directories.PAGE), m=listing.mark)
        return answer({**listing.completed(), "from": int(start)})

    async def put(self, request: web.Request) -> web.Response:
        """Upload a file. It appears under its name only when it is complete; with ``If-None-Match: *``, only if new."""
        principal = await self._state.principal(request)
        session = self._rest.own_of(principal, request)
        path = _path(request)
        most = self._state.web.upload_bytes
        if (request.content_length or 0) > most:
            raise Refusal(413, "too_large", f"a file may have at most {most} bytes here.")
        upload = _Upload(request, most)
        with self._state.transferring(upload.cut, principal, self._state.source(request)):
            new = "new" if request.headers.get("If-None-Match") == "*" else ""
            make = "make" if request.query.get("parents") == "1" else ""
            await self._run(session, upload, path, fileprograms.WRITE, w=upload.size, m=upload.mark, o=new, k=make)
        size = upload.completed()
        self._respond(session, "upload", path, size, 0)
        return answer({"path": path, "bytes": size}, 201)

    async def delete(self, request: web.Request) -> web.Response:
        """Delete a file, a link or an empty directory; with ``tree=1`` a directory with all that is in it."""
        principal = await self._state.principal(request)
        tree = "tree" if request.query.get("tree") == "1" else ""
        await self._change(request, principal, "delete", fileprograms.DELETE, k=tree)
        return web.Response(status=204)

    async def rename(self, request: web.Request) -> web.Response:
        """Rename a file or a directory. Nothing is replaced."""
        principal = await self._state.principal(request)
        to = _changeable((await read_body(request, RenameBody)).to)
        await self._change(request, principal, "rename", fileprograms.RENAME, to)
        return answer({"path": to})

    async def make(self, request: web.Request) -> web.Response:
        """Make an empty directory."""
        principal = await self._state.principal(request)
        await read_body(request, Nothing)
        return answer({"path": await self._change(request, principal, "make", fileprograms.MAKE)}, 201)

    async def _change(
        self, request: web.Request, principal: Principal, operation: str, script: str, to: str = "", **more: str
    ) -> str:
        """Run the script of a change to the requested path, and return that."""
        session = self._rest.own_of(principal, request)
        path, change = _changeable(_path(request)), _Change(request)
        whole = False
        try:
            with self._state.transferring(change.cut, principal, self._state.source(request)):
                await self._run(session, change, path, script, to, **more)
            change.completed()
            whole = True
        finally:
            if change.may_be_done:
                self._state.events.emit(
                    Code.FILE_CHANGED, user=session.user, operation=operation, path=path, to=to or None, whole=whole
                )
        return path

    def _respond(self, session: WebSession, operation: str, path: str, came: int, went: int) -> None:
        self._state.events.emit(
            Code.FILE_TRANSFER, user=session.user, operation=operation, path=path, bytes_in=came, bytes_out=went
        )

    async def _run(
        self, session: WebSession, client: _Transfer, path: str, script: str, to: str = "", **more: str
    ) -> None:
        busy = self._busy[session.id]
        if busy >= AT_A_TIME:
            raise Refusal(429, "limit", f"{busy} transfers of this session are under way; wait for one.")
        if self._busy_users[session.user] >= AT_A_TIME_PER_USER:
            raise Refusal(429, "limit", f"{AT_A_TIME_PER_USER} transfers of yours are under way; wait for one.")

        async def run(login: Login) -> None:
            client.begun = True
            words = {"s": str(login.shell_pid(session) or "self"), **more}
            await login.run(Request(fileprograms.program(script, {"p": path, "q": to}, words)), client)

        counts = ((self._busy, session.id), (self._busy_users, session.user))
        for counter, key in counts:
            counter[key] += 1
        tasks = TaskSet()
        tasks.start(client.give_up())
        try:
            if not await self._state.sessions.in_background(session, run):
                raise Refusal(
                    409, "conflict", "this session has no sandbox now; wait until it runs, or begin a new one."
                )
        finally:
            await tasks.cancel()
            for counter, key in counts:
                take_one(counter, key)


def _directory(request: web.Request) -> str:
    """Return the path of a directory, which may end in slashes; without one the working directory."""
    path = _query(request) or "."
    return path.rstrip("/") or "/" if path != "~/" else path


def _path(request: web.Request) -> str:
    return _file(_query(request))


def _file(path: str) -> str:
    if not path or path.endswith("/"):
        raise Refusal(400, "request", "give the path of a file: ?path=NAME.")
    return _text(path)


def _changeable(path: str) -> str:
    name = _file(path).rpartition("/")[2]
    if name in (".", "..") or len(name.encode()) > LONGEST_NAME:
        raise Refusal(400, "request", f"a name has {LONGEST_NAME} bytes at most, and is neither . nor .. here.")
    return path


def _query(request: web.Request) -> str:
    try:
        # Bytes that are no text were replaced, so that this may be the path of another file.
        unquote_to_bytes(request.rel_url.raw_query_string).decode()
    except UnicodeError:  # aiohttp's parser in Python puts surrogates for bytes that are no UTF-8
        raise Refusal(400, "request", "the path is no text.") from None
    return _text(request.query.get("path", ""))


def _text(path: str) -> str:
    if "\0" in path or len(path.encode("utf-8", "replace")) > LONGEST_PATH:
        raise Refusal(400, "request", "that is no path.")
    try:
        path.encode()
    except UnicodeEncodeError:
        raise Refusal(400, "request", "the path is no text.") from None
    return path


class _Transfer:
    """The ``stream.interfaces.Client`` of a transfer's script: connects it to an HTTP request and response."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self.begun = False
        """Whether its script may have begun."""
        self._gone = Event()
        # How often the browser was waited for so far, and whether it is now. It may pause a transfer.
        self._turns = 0
        self._outside = 0
        self._complaint = b""
        self._outcome: Outcome | None = None
        self._refusal: Refusal | None = None

    def cut(self) -> None:
        """Abort the transfer because its login is over."""
        self._refusal = Refusal(401, "login", "your login is over.")
        self._gone.set()

    async def give_up(self) -> None:
        """Abort the transfer when its connection is lost, or its script neither goes on nor ends."""
        lost, turns = connection_of(self._request).lost, -1
        while self._outside or self._turns != turns:
            turns = self._turns
            if await within(STALLED_SECONDS, lost.wait()):
                break
        else:
            self._refusal = Refusal(502, "sandbox", "the sandbox did not go on with this transfer.")
        self._gone.set()

    @contextmanager
    def _browsers_turn(self) -> Iterator[None]:
        self._outside += 1
        try:
            yield
        finally:
            self._outside -= 1
            self._turns += 1

    async def read(self) -> bytes | None:
        return None

    async def write(self, stream: int, data: bytes) -> None:
        if stream == STDERR:
            self._complaint = (self._complaint + data)[-COMPLAINT_BYTES:]
        elif not self._gone.is_set():
            try:
                with self._browsers_turn():
                    await self._report(data)
            except (ConnectionError, RuntimeError):
                self._gone.set()
            except Refusal as refusal:
                self._refusal = refusal
                self._gone.set()

    async def _report(self, data: bytes) -> None:
        raise NotImplementedError

    async def control(self) -> Control:
        return await asyncio.Future()

    async def wait_closed(self) -> None:
        await self._gone.wait()

    async def finish(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._gone.set()

    def _check(self) -> None:
        """Raise ``Refusal`` unless the script has succeeded."""
        if self._refusal is not None:
            raise self._refusal
        if self._outcome == Exited(0):
            return
        if isinstance(self._outcome, Exited) and self._outcome.status in fileprograms.REFUSALS:
            raise Refusal(*fileprograms.REFUSALS[self._outcome.status])
        reason = self._outcome.reason if isinstance(self._outcome, Lost) else ""
        report = self._complaint.decode("utf-8", "replace").strip().splitlines()
        words = clean(reason or (report[-1] if report else "the transfer broke off."), COMPLAINT_CHARACTERS)
        raise Refusal(502, "sandbox", words)


class _Download(_Transfer):
    """A download. The script writes the file's size in the first line, then its bytes.

    ``packed``: the bytes are made as they are sent, so that nobody knows their number.
    """

    def __init__(self, request: web.Request, path: str, packed: bool = False) -> None:
        super().__init__(request)
        self._packed = packed
        name = clean(path.rpartition("/")[2], 255)
        plain = "".join(c if c.isascii() and c not in '"\\' else "_" for c in name)
        self._response = web.StreamResponse(headers={
            "Content-Type": "application/octet-stream",
            "Content-Disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}",
            "Cache-Control": "no-store",
        })  # fmt: skip
        self._head = b""
        self._left: int | None = None
        self.sent = 0
        """Bytes of the file so far."""

    async def _report(self, data: bytes) -> None:
        if self._left is None:
            self._head += data
            line, newline, data = self._head.partition(b"\n")
            if not newline and len(line) <= LONGEST_NUMBER:
                return
            self._left = _number(line)
            if not self._packed:
                self._response.content_length = self._left
            await self._response.prepare(self._request)
        if data:
            self._left -= 0 if self._packed else len(data)
            self.sent += len(data)
            await self._response.write(data)

    async def completed(self) -> web.StreamResponse:
        """Finish the response and return it; abort the connection if the file is not complete.

        Raises ``Refusal`` if the response had not begun.
        """
        if self._left is None:
            self._check()
            raise Refusal(502, "sandbox", "the transfer broke off.")
        if self._left == 0 and self._outcome == Exited(0):
            await self._response.write_eof()
        elif self._request.transport is not None:
            # Abort, so that the client notices that the file is incomplete.
            self._request.transport.abort()
        return self._response


class _Timed(_Transfer):
    """What has so many seconds, whatever its script says meanwhile."""

    def __init__(self, request: web.Request, seconds: float, late: str) -> None:
        super().__init__(request)
        self._seconds, self._late = seconds, late

    async def give_up(self) -> None:
        """Abort it when its connection is lost, or it takes too long."""
        if not await within(self._seconds, connection_of(self._request).lost.wait()):
            self._refusal = Refusal(502, "sandbox", self._late)
        self._gone.set()


class _Change(_Timed):
    """A change of names; its script has nothing to say but what is wrong."""

    def __init__(self, request: web.Request) -> None:
        super().__init__(request, STALLED_SECONDS, "the sandbox did not do it in time; a part of it may be done.")

    @property
    def may_be_done(self) -> bool:
        """Whether it is done, wholly or in part, as far as is known. What a script refuses changes nothing."""
        refused = isinstance(self._outcome, Exited) and self._outcome.status in fileprograms.REFUSALS
        return self.begun and not refused

    async def _report(self, data: bytes) -> None:
        pass

    def completed(self) -> None:
        """Raise ``Refusal`` unless it is done."""
        self._check()


class _Listing(_Timed):
    """A part of a directory's list; see ``directories``."""

    def __init__(self, request: web.Request) -> None:
        super().__init__(request, LIST_SECONDS, "the sandbox did not list this directory in time.")
        self.mark = secrets.token_hex(16)
        self._output = bytearray()

    async def _report(self, data: bytes) -> None:
        self._output += data
        if len(self._output) > directories.LONGEST_OUTPUT:
            raise _no_list()

    def completed(self) -> dict[str, Any]:
        """Return the list. Raises ``Refusal``."""
        self._check()
        try:
            return directories.parse(bytes(self._output), self.mark)
        except directories.Nonsense:
            raise _no_list() from None


def _no_list() -> Refusal:
    return Refusal(502, "sandbox", "the sandbox answered with something else than a list.")


class _Upload(_Transfer):
    """An upload. The request's body goes to the script's stdin; the script answers with the number of bytes."""

    def __init__(self, request: web.Request, most: int) -> None:
        super().__init__(request)
        self._most = most
        self._bytes = 0
        self._whole = False
        length = request.content_length
        self.size = "" if length is None else str(length)
        """The Content-Length in decimal; empty if the request has none."""
        self.mark = secrets.token_hex(16) if length is None else ""
        """A random mark, sent after the last byte of a request without Content-Length."""
        self._answer = b""

    async def read(self) -> bytes | None:
        if self._whole:
            return None
        try:
            with self._browsers_turn():
                data = await self._request.content.readany()
        except Exception:  # aiohttp raises various exceptions for a body that breaks off
            await self._broken()
        self._bytes += len(data)
        if self._bytes > self._most:
            await self._broken()
        self._whole = not data
        return data or self.mark.encode() or None

    async def _broken(self) -> NoReturn:
        # Do not return an end of input: the script would take the part for a complete file. Wait to be cancelled.
        self._gone.set()
        await asyncio.Future()
        raise AssertionError

    async def _report(self, data: bytes) -> None:
        self._answer = (self._answer + data)[:100]

    def completed(self) -> int:
        """Return the number of bytes written. Raises ``Refusal`` if the upload failed."""
        if self._bytes > self._most:
            raise Refusal(413, "too_large", f"a file may have at most {self._most} bytes here.")
        self._check()
        return _number(self._answer)


def _number(output: bytes) -> int:
    """Parse a size from the script. It is not trusted: other programs of the user may write to its output."""
    digits = output.strip()
    if not digits.isdigit() or len(digits) > LONGEST_NUMBER:
        raise Refusal(502, "sandbox", "the sandbox answered with something else than a size.")
    return int(digits)
