"""git over https with a token that stays outside: ``/git/HOST/OWNER/NAME`` on the port, by git's ``insteadOf``.

Only what ``git clone``, ``fetch`` and ``push`` ask of a server passes (gitprotocol-http). The token is added here; what
the sandbox sends as a credential is not among the headers that go on.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import aiohttp
from aiohttp import web
from yarl import URL

from sshgate.broker.caller import Caller, Refused
from sshgate.broker.sockets import UNSENT, Proxy, carry, error_of, expect_body
from sshgate.config.model import Config, GitHost
from sshgate.config.values import matches
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import EventContext, Events, Stranger
from sshgate.telemetry.timings import since

PREFIX = "/git/"
UPLOAD, RECEIVE = "git-upload-pack", "git-receive-pack"
# Seconds. A server may count and compress objects for minutes before it sends a byte.
TIMES = aiohttp.ClientTimeout(total=3600, sock_connect=20, sock_read=600)
BUFFER = 64 * 1024
LONGEST_REPOSITORY = 200

_PATH = re.compile(
    r"/git/(?P<host>[A-Za-z0-9.-]+)/(?P<repository>\w[\w.-]*(?:/\w[\w.-]*){1,4})/"
    rf"(?P<asked>info/refs|{UPLOAD}|{RECEIVE})\Z",
    re.ASCII,
)
_QUERY = re.compile(rf"service=({UPLOAD}|{RECEIVE})\Z")
_SENT = (
    "Accept", "Accept-Encoding", "Content-Type", "Content-Encoding", "Content-Length", "Git-Protocol", "User-Agent"
)  # fmt: skip
_RETURNED = ("Content-Type", "Content-Encoding", "Cache-Control", "Expires", "Pragma")


@dataclass(frozen=True, slots=True)
class _Asked:
    host: str
    repository: str
    path: str
    service: str


class GitProxy(Proxy):
    """Answers the git requests of all sandboxes."""

    def __init__(self, config: Config, events: Events) -> None:
        skipped = ("Accept", "Content-Type")
        super().__init__(config, events, 15, timeout=TIMES, read_bufsize=BUFFER, skip_auto_headers=skipped)

    async def answer(self, request: web.BaseRequest, caller: Caller) -> web.StreamResponse:
        """Answer one request. Cancelling it ends the server's answer as well."""
        events = self._context(caller)
        try:
            asked = _asked(request)
            events = events.with_fields(host=asked.host, repository=asked.repository, service=asked.service)
            return await self._forward(request, asked, self._host(asked, caller), caller, events)
        except Refused as error:
            stranger = Stranger(f"{caller.sandbox} {caller.uid}")
            events.emit(Code.GIT_REFUSED, status=error.status, reason=error.sentence, stranger=stranger)
            # git shows a plain text as the server's own words.
            response = web.Response(status=error.status, text=f"sshgate: {error.sentence}\n")
            response.force_close()
            return response

    def _host(self, asked: _Asked, caller: Caller) -> GitHost:
        profile, host = self._config.profiles.get(caller.profile), self._config.git.get(asked.host)
        if profile is None or host is None or asked.host not in profile.git:
            raise Refused(f"there is no token for {asked.host} here; ask your operator (git, profiles.*.git).")
        if not matches(asked.repository.lower().removesuffix(".git"), [one.lower() for one in host.allow]):
            raise Refused(f"{asked.repository} is not among the repositories allowed here (git.{asked.host}.allow).")
        if asked.service == RECEIVE and not host.push:
            raise Refused(f"pushing to {asked.host} is not allowed here (git.{asked.host}.push).")
        return host

    async def _forward(
        self, request: web.BaseRequest, asked: _Asked, host: GitHost, caller: Caller, events: EventContext
    ) -> web.StreamResponse:
        token = self._keys.of_git(asked.host, host, caller.user)
        login = token if ":" in token else f"x-access-token:{token}"
        headers = {name: request.headers[name] for name in _SENT if name in request.headers}
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
        if request.method == "GET":
            headers["Accept-Encoding"] = "identity"  # most refusals are answers to these: their text has to be read
        base = (host.upstream or f"https://{asked.host}").rstrip("/")
        counted = [0, 0]

        async def body() -> AsyncIterator[bytes]:
            async for piece in request.content.iter_any():
                counted[0] += len(piece)
                yield piece

        await expect_body(request)
        assert self._session is not None
        began = time.monotonic()
        try:
            response = await self._session.request(
                request.method, URL(f"{base}{asked.path}", encoded=True), headers=headers,
                data=body() if request.method == "POST" else None, allow_redirects=False,
            )  # fmt: skip
        except BaseException as error:
            if not isinstance(error, UNSENT):
                # What was pushed may have been taken: the end of an answer that has not begun.
                self._report(events, began, 0, counted, whole=False)
            if isinstance(error, aiohttp.ClientError | TimeoutError | OSError | ValueError):
                raise Refused(f"{asked.host} cannot be reached; try again.", 502) from None
            raise
        try:
            if response.status == 401:
                raise Refused(f"{asked.host} does not take your operator's token; ask them for another.")
            if 300 <= response.status < 400:
                raise Refused(
                    f"{asked.host} answered with a redirect, which is not followed; has it been renamed?", 502
                )
            returned = {one: response.headers[one] for one in _RETURNED if one in response.headers}
            if response.status >= 400:
                basic = headers["Authorization"].partition(" ")[2]
                text, whole = b"", False
                try:
                    text, whole = await error_of(response, (basic, token.rpartition(":")[2]))
                finally:
                    self._report(events, began, response.status, [counted[0], len(text)], whole)
                returned.pop("Content-Encoding", None)
                failed = web.Response(status=response.status, headers=returned, body=text)
                failed.force_close()  # its body may not have been read
                return failed
            answer = web.StreamResponse(status=response.status, headers=returned)
            if self.closing:
                answer.force_close()
            whole = False

            def feed(piece: bytes) -> None:
                counted[1] += len(piece)

            try:
                whole = await carry(request, response, answer, feed)
            finally:
                self._report(events, began, response.status, counted, whole)
            return answer
        finally:
            response.close()

    @staticmethod
    def _report(events: EventContext, began: float, status: int, counted: Sequence[int], whole: bool) -> None:
        sent, received = counted
        events.emit(
            Code.GIT_REQUEST, status=status, bytes_in=sent, bytes_out=received, whole=whole, seconds=since(began)
        )


def _asked(request: web.BaseRequest) -> _Asked:
    """Read what is asked for. Raises ``Refused`` for all that clone, fetch and push do not ask."""
    path, _, query = request.raw_path.partition("?")
    found = _PATH.match(path)
    service = _QUERY.match(query) if found and found["asked"] == "info/refs" else None
    refs = found is not None and service is not None and request.method == "GET" and not request.can_read_body
    pack = found is not None and found["asked"] != "info/refs" and not query and request.method == "POST"
    if found is None or not (refs or pack):
        raise Refused("only what git's clone, fetch and push ask is passed on.", 404)
    asked, repository = found["asked"], found["repository"]
    if len(repository) > LONGEST_REPOSITORY:
        raise Refused("this is no repository's name.", 404)
    suffix = f"?{query}" if query else ""
    return _Asked(found["host"].lower(), repository, f"/{repository}/{asked}{suffix}", service[1] if service else asked)
