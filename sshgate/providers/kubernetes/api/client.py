"""REST requests and websockets to one API server: raw JSON in, few fields out, every failure a ``GateError``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from sshgate.config.model import SandboxPlace
from sshgate.errors import GateError, Unavailable
from sshgate.providers.kubernetes.api import credentials
from sshgate.providers.kubernetes.api import errors as failures
from sshgate.providers.kubernetes.api.credentials import Credentials
from sshgate.providers.kubernetes.api.objects import Listing, Pod
from sshgate.providers.kubernetes.api.websocket import Connector, Refused, RemoteSocket, connect
from sshgate.stream.tasks import TaskSet
from sshgate.stream.turns import budget

T = TypeVar("T")

JSON = "application/json"
JSON_PATCH = "application/json-patch+json"
# Seconds an idle connection is kept for the next request; Go's server closes it after 90.
KEEP_CONNECTION = 60.0
# After a 401 the credentials are read again, at most once per this many seconds.
REREAD_SECONDS = 5.0
# Objects per page of a list: decoding 100 pods takes 2 ms, during which the event loop is blocked.
PAGE = 100
MOST_PAGES = 10_000
# Seconds before each attempt to create an object.
CREATE_PAUSES = (0.0, 0.1, 0.5)
# Longer than any object that the API server can store; a watch has one per line.
LONGEST_LINE = 16 << 20

_pod = msgspec.json.Decoder(Pod)
_pods = msgspec.json.Decoder(Listing[Pod])
_encoder = msgspec.json.Encoder()
_COLLECTIONS = ("/pods", "/events", "/leases", "/persistentvolumeclaims")


Observe = Callable[[str, str, float], None]
"""Called after each request with its RBAC verb, its outcome (``ok``, ``cancelled`` or the error's code) and seconds."""


def unobserved(verb: str, outcome: str, seconds: float) -> None:
    """An ``Observe`` that does nothing."""


@dataclass
class Anchor:
    """The object that owns each object created: deleting it (uninstall) garbage-collects them. See ``installation``."""

    name: str | None
    reference: dict[str, Any] | None = None


class ApiServer:
    """A connection pool to the API server, for one namespace. ``open`` before use, ``close`` after.

    Requests fail with a ``GateError`` (see ``errors``). A request that is cancelled may still be carried out.
    """

    def __init__(
        self,
        place: SandboxPlace,
        reread: float = REREAD_SECONDS,
        observe: Observe = unobserved,
        read: Callable[[], Awaitable[Credentials]] | None = None,
    ) -> None:
        """``read`` returns the credentials; by default those that ``place`` selects."""
        self._observe = observe
        self._read = read if read is not None else lambda: credentials.read(place)
        self.namespace = place.namespace
        self.timeout = place.api_timeout
        self._place = place
        self._credentials: Credentials | None = None
        self._session: aiohttp.ClientSession | None = None
        self._retired: list[aiohttp.ClientSession] = []
        self._reread = reread
        self._read_at = 0.0
        self._rereading = TaskSet()
        self.anchor = Anchor(place.anchor)
        self.on_date: Callable[[float, float, float], None] = lambda date, sent, received: None
        """Called with each response's ``Date`` (POSIX seconds), and when it was requested and received (monotonic)."""

    def owner_metadata(self) -> dict[str, Any]:
        """Metadata for each object created: its owner."""
        return {"ownerReferences": [self.anchor.reference]} if self.anchor.reference is not None else {}

    async def open(self) -> None:
        """Read the credentials. Raises ``Unavailable``."""
        await self._read_credentials()

    def for_other_loop(self) -> ApiServer:
        """Another client with the same credentials for the event loop of another thread; open and close it there.

        Only this client reads credentials anew: the library that reads them is not thread-safe.
        """
        loop = asyncio.get_running_loop()

        async def read() -> Credentials:
            return self._opened()[0]

        def observe(verb: str, outcome: str, seconds: float) -> None:
            with contextlib.suppress(RuntimeError):  # the gateway's loop has ended
                loop.call_soon_threadsafe(self._observe, verb, outcome, seconds)

        twin = ApiServer(self._place, self._reread, observe, read)
        twin.anchor = self.anchor
        return twin

    async def close(self) -> None:
        """Close all connections, including those in use."""
        await self._rereading.cancel()
        sessions, self._retired = [*self._retired, self._session], []
        self._session = None
        for session in sessions:
            if session is not None:
                connector = session.connector
                await session.close()
                if isinstance(connector, Connector):
                    connector.cut()

    # --- pods ---

    async def create_pod(self, manifest: Mapping[str, Any]) -> Pod:
        """POST a pod. Raises ``Conflict`` if the name is taken, and as ``create`` does.

        If a connection breaks and the POST is repeated, the 409 for our own pod is recognised by its labels and
        annotations, even when an admission plug-in has added some, and the pod is returned.
        """
        manifest = {**manifest, "metadata": {**manifest["metadata"], **self.owner_metadata()}}
        found, refusal = await self.create(_pod, "pods", manifest, "create the sandbox")
        sent = manifest["metadata"]
        if refusal is not None and not (
            sent.get("labels", {}).items() <= found.metadata.labels.items()
            and sent["annotations"].items() <= found.metadata.annotations.items()
        ):
            raise refusal
        return found

    async def create(
        self, decoder: msgspec.json.Decoder[T], resource: str, manifest: Mapping[str, Any], doing: str
    ) -> tuple[T, failures.Conflict | None]:
        """POST an object. If its name is taken, returns the one there is, and the refusal. Raises as ``request`` does.

        A 409 without such an object means that something else has changed at the same time, such as a ResourceQuota:
        the POST is repeated, and ``Unavailable`` raised in the end.
        """
        for pause in CREATE_PAUSES:
            await asyncio.sleep(pause)
            try:
                return decode(decoder, await self.request("POST", self.path(resource), manifest, doing=doing)), None
            except failures.Conflict as conflict:
                refusal = conflict
            with contextlib.suppress(failures.NotFound):
                path = self.path(resource, manifest["metadata"]["name"])
                return decode(decoder, await self.request("GET", path, doing=doing)), refusal
        raise Unavailable(f"too much changes in the cluster at once to {doing}; try again in a moment.")

    async def get_pod(self, name: str) -> Pod:
        """GET one pod. Raises ``NotFound``."""
        return decode(_pod, await self.request("GET", self.path("pods", name), doing="look at the sandbox"))

    async def list_pods(self, selector: str) -> Listing[Pod]:
        """List the pods that match a label selector. Raises as ``list_all`` does."""
        return await self.list_all(_pods, self.path("pods"), {"labelSelector": selector}, "list sandboxes")

    async def patch_pod(self, name: str, patch: list[dict[str, Any]]) -> Pod:
        """Apply a JSON Patch, all or nothing. Raises ``Invalid`` when one of its ``test`` operations fails."""
        body = await self.request("PATCH", self.path("pods", name), patch, content=JSON_PATCH, doing="claim a sandbox")
        return decode(_pod, body)

    async def delete_pod(
        self, name: str, uid: str | None = None, grace: int | None = None, version: str | None = None
    ) -> None:
        """Delete a pod. Raises ``NotFound``, or ``Conflict`` if it has another ``uid`` or resource ``version``.

        ``grace`` is the grace period in seconds; ``None`` for the pod's own.
        """
        more: dict[str, Any] = {"propagationPolicy": "Background"}
        if grace is not None:
            more["gracePeriodSeconds"] = grace
        await self.delete(self.path("pods", name), uid, version, "delete the sandbox", **more)

    async def delete(self, path: str, uid: str | None, version: str | None, doing: str, **more: Any) -> None:
        """Delete an object, if it has this uid and resource version; ``more``: further ``DeleteOptions``."""
        known = {"uid": uid, "resourceVersion": version}
        preconditions = {key: value for key, value in known.items() if value is not None}
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": preconditions, **more}
        await self.request("DELETE", path, options, doing=doing)

    def path(self, resource: str, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of a core/v1 object or collection in the namespace."""
        parts = [quote(part, safe="") for part in (self.namespace, resource, name, subresource) if part is not None]
        return "/".join(["/api/v1/namespaces", *parts])

    # --- requests ---

    async def list_all(
        self, decoder: msgspec.json.Decoder[Listing[T]], path: str, query: Mapping[str, str], doing: str
    ) -> Listing[T]:
        """List a collection, in pages with the event loop free in between; ``items`` is never ``None``.

        Raises as ``request`` does, and ``Unavailable`` for an answer that is no list.
        """
        work = budget()
        asked = {**query, "limit": str(PAGE)}
        found: list[T] = []
        again = True
        for _ in range(MOST_PAGES):
            try:
                body = await self.request("GET", path, query=asked, doing=doing)
            except failures.Expired:
                if "continue" not in asked or not again:
                    raise
                # The version that the first page showed has been compacted: begin anew, once.
                again = False
                found.clear()
                del asked["continue"]
                continue
            began = time.monotonic()
            page = decode(decoder, body)
            found.extend(page.items or ())
            if not page.metadata.continue_:
                page.items = found
                return page
            asked["continue"] = page.metadata.continue_
            await work.charge_and_wait(time.monotonic() - began)
        raise Unavailable("the API server sends a list without an end.")

    async def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, str] | None = None,
        content: str = JSON,
        doing: str = "answer",
    ) -> bytes:
        """Send one request and return the body; ``doing`` completes "the cluster refused to ...".

        Repeats itself once after a 401 with fresh credentials, after a 429 with ``Retry-After``, and once when the
        server has dropped the connection.

        Raises ``Unavailable`` without a response within ``timeout`` seconds, else what ``errors.failure`` returns.
        """
        data = None if body is None else _encoder.encode(body)
        headers = {"Accept": JSON} if data is None else {"Accept": JSON, "Content-Type": content}
        stale = renewed = False
        async with self._requesting(_verb(method, path)):
            while True:
                used = self._credentials
                try:
                    return await self._once(method, path, query, data, headers, doing)
                except aiohttp.ServerDisconnectedError:
                    if stale:
                        raise
                    stale = True
                except failures.Unauthenticated:
                    if renewed or not await self._renew(used):
                        raise
                    renewed = True
                except failures.Invalid:
                    if stale and method == "PATCH":
                        # The first attempt, whose response was lost, may have been applied: its test fails now.
                        raise failures.unreachable() from None
                    raise
                except _TooBusy as busy:
                    await asyncio.sleep(busy.seconds)
        raise AssertionError("the loop has no other end")

    @contextlib.asynccontextmanager
    async def stream(self, path: str, query: Mapping[str, str], silence: float) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a watch; the context is an iterator of its lines. ``silence``: longest time without data, in seconds.

        What the caller does with a line counts towards the watch's budget of the event loop (``stream.turns``), so it
        must not wait for anything. The iterator raises as ``request`` does.
        """
        async with self._requesting("watch"):
            response = await self._send("GET", path, query, None, {"Accept": JSON}, read=silence)
        try:
            if response.status != 200:
                body = await response.content.read(1 << 20)
                raise failures.failure(response.status, failures.status_of(body), "watch sandboxes")
            yield _lines(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # The response refers to this error, whose frames refer to the response: break the cycle.
            raise failures.unreachable() from error.with_traceback(None)
        finally:
            response.close()

    async def websocket(self, path: str, query: str) -> RemoteSocket:
        """Open a remotecommand websocket. The caller closes it. Raises as ``request`` does."""
        renewed = False
        async with self._requesting(path.rpartition("/")[2]):
            while True:
                known, session = self._opened()
                url = f"{known.host}{path}?{query}"
                try:
                    return await connect(session, url, await known.headers(), known.proxy, known.server_hostname)
                except Refused as refused:
                    if refused.status != 401 or renewed or not await self._renew(known):
                        status = failures.status_of(refused.body)
                        raise failures.failure(refused.status, status, "enter the sandbox") from None
                    renewed = True
        raise AssertionError("the loop has no other end")

    @contextlib.asynccontextmanager
    async def _requesting(self, verb: str) -> AsyncIterator[None]:
        """What the body asks has ``timeout`` seconds. Its failures become a ``GateError``, and are observed."""
        began, outcome = time.monotonic(), "cancelled"
        try:
            try:
                async with asyncio.timeout(self.timeout):
                    yield
            except TimeoutError as error:
                raise failures.silent(self.timeout) from error
            except (aiohttp.ClientError, OSError) as error:
                raise failures.unreachable() from error
            outcome = "ok"
        except GateError as error:
            outcome = error.code
            raise
        finally:
            self._observe(verb, outcome, time.monotonic() - began)

    async def _once(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        data: bytes | None,
        headers: dict[str, str],
        doing: str,
    ) -> bytes:
        sent = time.monotonic()
        response = await self._send(method, path, query, data, headers)
        self._observe_time(response, sent)
        async with response:
            body = await response.read()
            if 200 <= response.status < 300:
                return body
            status = failures.status_of(body)
            if response.status == 429 and "Retry-After" in response.headers:
                raise _TooBusy(_seconds(response.headers["Retry-After"]))
            raise failures.failure(response.status, status, doing)

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        data: bytes | None,
        headers: dict[str, str],
        read: float | None = None,
    ) -> aiohttp.ClientResponse:
        known, session = self._opened()
        return await session.request(
            method,
            known.host + path,
            params=query,
            data=data,
            headers={**headers, **await known.headers()},
            proxy=known.proxy,
            server_hostname=known.server_hostname,
            timeout=aiohttp.ClientTimeout(total=None, sock_read=read),
            allow_redirects=False,
        )

    def _observe_time(self, response: aiohttp.ClientResponse, sent: float) -> None:
        with contextlib.suppress(KeyError, ValueError, TypeError):
            date = parsedate_to_datetime(response.headers["Date"]).timestamp()
            self.on_date(date, sent, time.monotonic())

    def _opened(self) -> tuple[Credentials, aiohttp.ClientSession]:
        if self._credentials is None or self._session is None:
            raise Unavailable("the connection to the cluster is closed.")
        return self._credentials, self._session

    # --- credentials ---

    async def _renew(self, used: Credentials | None) -> bool:
        """Read the credentials again after a 401 for those that were ``used``, once for all requests.

        False if that was begun or done less than ``reread`` seconds ago.
        """
        if self._credentials is not used:
            return True
        if not self._rereading:
            if asyncio.get_running_loop().time() - self._read_at < self._reread:
                return False
            # Also if it fails: a plug-in that hangs, or is wrong, is not run for each request.
            self._read_at = asyncio.get_running_loop().time()
            self._rereading.start(self._read_credentials())
        # A request that is given up takes the credentials from no other.
        await asyncio.shield(next(iter(self._rereading)))
        return True

    async def _read_credentials(self) -> None:
        known, before = await self._read(), self._credentials
        # Only sessions retired earlier: a request may be just starting on the one retired below.
        idle = [one for one in self._retired if not (isinstance(one.connector, Connector) and one.connector.in_use)]
        self._retired = [one for one in self._retired if one not in idle]
        if before is not None and known.material == before.material:
            # Only the token has changed, or nothing: keep the connections and the TLS context.
            known = replace(known, tls=before.tls)
        elif self._session is not None:
            # Watches and execs still use its connections.
            self._retired.append(self._session)
            self._session = None
        if self._session is None:
            self._session = _session_of(known)
        self._credentials = known
        self._read_at = asyncio.get_running_loop().time()
        for session in idle:
            await session.close()


class _TooBusy(GateError):
    """429 with a ``Retry-After``, in seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__("the API server has too much to do; try again in a moment.")
        self.seconds = seconds


def _verb(method: str, path: str) -> str:
    """The RBAC verb: a GET of a collection is ``list``."""
    if method == "GET":
        return "list" if path.endswith(_COLLECTIONS) else "get"
    return {"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}.get(method, "other")


def _seconds(text: str) -> float:
    return min(max(float(text), 0.05), 60.0) if text.isdigit() else 1.0


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield the complete lines of the body; an unterminated last one is dropped."""
    work = budget()
    rest = bytearray()
    async for block in response.content.iter_any():
        first, *whole = block.split(b"\n")
        rest += first
        if len(rest) > LONGEST_LINE:
            raise Unavailable("the API server sends a line without an end.")
        for part in whole:
            line, rest = bytes(rest), bytearray(part)
            if line:
                began = time.monotonic()
                yield line
                await work.charge_and_wait(time.monotonic() - began)


def decode(decoder: msgspec.json.Decoder[T], data: bytes | msgspec.Raw) -> T:
    """Decode what the API server sent. Raises ``Unavailable`` if it is something else."""
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unavailable("the API server sent something that is no answer.") from error


def _session_of(known: Credentials) -> aiohttp.ClientSession:
    """An HTTP client session that uses these credentials' TLS context."""
    connector = Connector(
        # Every exec holds a connection: a limit would make the next login wait silently.
        limit=0,
        ssl=known.tls if known.tls is not None else True,
        keepalive_timeout=KEEP_CONNECTION,
        socket_factory=_socket,
    )
    # Only if a proxy is configured: trust_env also makes aiohttp look for a netrc file on every request.
    proxied = any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"))
    return aiohttp.ClientSession(connector=connector, trust_env=proxied, auto_decompress=True)


def _socket(address: Any) -> socket.socket:
    """A socket that detects within about a minute that the peer has vanished."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 60_000)):
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made
