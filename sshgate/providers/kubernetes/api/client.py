"""REST and websockets to one API server: raw JSON in, few fields out, every failure a ``GateError``."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import aiohttp
import msgspec

from sshgate.config.model import SandboxPlace
from sshgate.errors import GateError, Unavailable
from sshgate.providers.kubernetes.api import credentials
from sshgate.providers.kubernetes.api import errors as failures
from sshgate.providers.kubernetes.api.connections import session_of
from sshgate.providers.kubernetes.api.credentials import Credentials
from sshgate.providers.kubernetes.api.objects import Listing, Pod
from sshgate.providers.kubernetes.api.websocket import Connector, Refused, RemoteSocket, connect

T = TypeVar("T")

JSON = "application/json"
JSON_PATCH = "application/json-patch+json"
# Credentials are read again after a 401, but not for every request of a server that refuses us.
REREAD_SECONDS = 5.0

_pod = msgspec.json.Decoder(Pod)
_pods = msgspec.json.Decoder(Listing[Pod])
_encoder = msgspec.json.Encoder()
_COLLECTIONS = ("/pods", "/events", "/leases", "/persistentvolumeclaims")


Observe = Callable[[str, str, float], None]
"""Told of each request: its verb as RBAC has it, ``ok`` or the failure's code, seconds."""


def unobserved(verb: str, outcome: str, seconds: float) -> None:
    """Nobody wants to know."""


class ApiServer:
    """A connection pool to the API server of one namespace. ``open`` before use, ``close`` after."""

    def __init__(
        self,
        place: SandboxPlace,
        reread: float = REREAD_SECONDS,
        observe: Observe = unobserved,
        read: Callable[[], Awaitable[Credentials]] | None = None,
    ) -> None:
        """``read`` is where the credentials come from; ``None``: from what ``place`` says."""
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
        self._rereading = asyncio.Lock()
        self.anchor: dict[str, Any] | None = None
        """An owner reference to an object of the installation; see ``anchor``."""
        self.on_date: Callable[[float, float, float], None] = lambda date, sent, received: None
        """Called with each answer's ``Date`` (POSIX seconds), and when it was asked and came (monotonic)."""

    def __repr__(self) -> str:
        return f"<ApiServer {self._credentials!r} namespace {self.namespace}>"

    def owned(self) -> dict[str, Any]:
        """For the metadata of whatever is made: who owns it. Uninstalling deletes that, and all this with it."""
        return {"ownerReferences": [self.anchor]} if self.anchor is not None else {}

    async def open(self) -> None:
        """Read the credentials. Raises ``Unavailable``."""
        await self._read_credentials()

    def twin(self) -> ApiServer:
        """One of the same credentials for the event loop of another thread, to be opened and closed there.

        The credentials are read anew here only: the library that reads them is not made for two threads.
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
        """Drop all connections, those in use too."""
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
        """POST a pod. A repeated POST after a broken connection finds its own pod, though admission has added to it."""
        manifest = {**manifest, "metadata": {**manifest["metadata"], **self.owned()}}
        try:
            return _pod.decode(await self.request("POST", self.path("pods"), manifest, doing="create the sandbox"))
        except failures.Conflict:
            found = await self.get_pod(manifest["metadata"]["name"])
            sent = manifest["metadata"]
            if not (
                sent.get("labels", {}).items() <= found.metadata.labels.items()
                and sent["annotations"].items() <= found.metadata.annotations.items()
            ):
                raise
            return found

    async def get_pod(self, name: str) -> Pod:
        """GET one pod. Raises ``NotFound``."""
        return _pod.decode(await self.request("GET", self.path("pods", name), doing="look at the sandbox"))

    async def list_pods(self, selector: str) -> Listing[Pod]:
        """All pods with these labels."""
        query = {"labelSelector": selector}
        return _pods.decode(await self.request("GET", self.path("pods"), query=query, doing="list sandboxes"))

    async def patch_pod(self, name: str, patch: list[dict[str, Any]]) -> Pod:
        """A JSON Patch, all or nothing. Raises ``Invalid`` when one of its tests fails."""
        body = await self.request("PATCH", self.path("pods", name), patch, content=JSON_PATCH, doing="claim a sandbox")
        return _pod.decode(body)

    async def delete_pod(
        self, name: str, uid: str | None = None, grace: int | None = None, version: str | None = None
    ) -> None:
        """Delete a pod, only the one with this ``uid``, only if it still has this ``version``.

        Raises ``NotFound``, ``Conflict`` (a precondition does not hold).
        """
        options: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        preconditions = {"uid": uid, "resourceVersion": version}
        if uid is not None or version is not None:
            options["preconditions"] = {key: value for key, value in preconditions.items() if value is not None}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        await self.request("DELETE", self.path("pods", name), options, doing="delete the sandbox")

    def path(self, resource: str, name: str | None = None, subresource: str | None = None) -> str:
        """The path of core/v1 objects in the namespace."""
        return "/".join(
            part for part in ("/api/v1/namespaces", self.namespace, resource, name, subresource) if part is not None
        )

    # --- the wire ---

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
        """One request, answered in ``timeout`` seconds or ``Unavailable``; refusals raise as ``failures`` says.

        Repeats by itself after 401 with credentials read anew, after 429 when the server says so, and once
        when a kept connection turns out to be dead.
        """
        with self._observed(_verb(method, path)):
            return await self._request(method, path, body, query, content, doing)

    async def _request(
        self, method: str, path: str, body: object, query: Mapping[str, str] | None, content: str, doing: str
    ) -> bytes:
        data = None if body is None else _encoder.encode(body)
        headers = {"Accept": JSON} if data is None else {"Accept": JSON, "Content-Type": content}
        stale = renewed = False
        try:
            async with asyncio.timeout(self.timeout):
                while True:
                    try:
                        return await self._once(method, path, query, data, headers, doing)
                    except aiohttp.ServerDisconnectedError:
                        if stale:
                            raise
                        stale = True
                    except failures.Unauthenticated:
                        if renewed or not await self._renew():
                            raise
                        renewed = True
                    except failures.Invalid:
                        if stale and method == "PATCH":
                            # Its test may have failed because the first one, whose answer was lost, was carried out.
                            raise failures.unreachable() from None
                        raise
                    except _TooBusy as busy:
                        await asyncio.sleep(busy.seconds)
        except TimeoutError as error:
            raise failures.silent(self.timeout) from error
        except (aiohttp.ClientError, OSError) as error:
            raise failures.unreachable() from error

    @contextlib.asynccontextmanager
    async def stream(self, path: str, query: Mapping[str, str], silence: float) -> AsyncIterator[AsyncIterator[bytes]]:
        """A GET that goes on: its lines (a watch). ``silence`` is how many seconds may pass without one."""
        with self._observed("watch"):
            try:
                async with asyncio.timeout(self.timeout):
                    response = await self._send("GET", path, query, None, {"Accept": JSON}, read=silence)
            except TimeoutError as error:
                raise failures.silent(self.timeout) from error
            except (aiohttp.ClientError, OSError) as error:
                raise failures.unreachable() from error
        try:
            if response.status != 200:
                body = await response.content.read(1 << 20)
                raise failures.failure(response.status, failures.status_of(body), "watch sandboxes")
            yield _lines(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # The response keeps this error, whose frames keep the response.
            raise failures.unreachable() from error.with_traceback(None)
        finally:
            response.close()

    async def websocket(self, path: str, query: str) -> RemoteSocket:
        """Open a remotecommand websocket; whoever gets it closes it. Refusals raise as ``failures`` says."""
        with self._observed(path.rpartition("/")[2]):
            return await self._websocket(path, query)

    async def _websocket(self, path: str, query: str) -> RemoteSocket:
        renewed = False
        try:
            async with asyncio.timeout(self.timeout):
                while True:
                    known, session = self._opened()
                    url = f"{known.host}{path}?{query}"
                    try:
                        return await connect(session, url, await known.headers(), known.proxy, known.server_hostname)
                    except Refused as refused:
                        if refused.status != 401 or renewed or not await self._renew():
                            status = failures.status_of(refused.body)
                            raise failures.failure(refused.status, status, "enter the sandbox") from None
                        renewed = True
        except TimeoutError as error:
            raise failures.silent(self.timeout) from error
        except (aiohttp.ClientError, OSError) as error:
            raise failures.unreachable() from error

    @contextlib.contextmanager
    def _observed(self, verb: str) -> Iterator[None]:
        began = time.monotonic()
        outcome = "cancelled"
        try:
            yield
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
        self._hear(response, sent)
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

    def _hear(self, response: aiohttp.ClientResponse, sent: float) -> None:
        with contextlib.suppress(KeyError, ValueError, TypeError):
            date = parsedate_to_datetime(response.headers["Date"]).timestamp()
            self.on_date(date, sent, time.monotonic())

    def _opened(self) -> tuple[Credentials, aiohttp.ClientSession]:
        if self._credentials is None or self._session is None:
            raise Unavailable("the connection to the cluster is closed.")
        return self._credentials, self._session

    # --- credentials ---

    async def _renew(self) -> bool:
        """Read the credentials again after a 401; False when that was done a moment ago."""
        async with self._rereading:
            if asyncio.get_running_loop().time() - self._read_at < self._reread:
                return False
            await self._read_credentials()
            return True

    async def _read_credentials(self) -> None:
        known, before = await self._read(), self._credentials
        # Those that were retired an earlier time: a request may just be beginning on the last one.
        idle = [one for one in self._retired if not (isinstance(one.connector, Connector) and one.connector.in_use)]
        self._retired = [one for one in self._retired if one not in idle]
        if before is not None and known.material == before.material:
            # Only a token is new, or nothing: connections are kept, and what their TLS context has cost.
            known = replace(known, tls=before.tls)
        elif self._session is not None:
            # Watches and execs go on over it.
            self._retired.append(self._session)
            self._session = None
        if self._session is None:
            self._session = session_of(known)
        self._credentials = known
        self._read_at = asyncio.get_running_loop().time()
        for session in idle:
            await session.close()


class _TooBusy(GateError):
    """429 with the server's wish when to come back."""

    def __init__(self, seconds: float) -> None:
        super().__init__("the API server has too much to do; try again in a moment.")
        self.seconds = seconds


def _verb(method: str, path: str) -> str:
    """The verb as RBAC has it: a GET of a collection is ``list``."""
    if method == "GET":
        return "list" if path.endswith(_COLLECTIONS) else "get"
    return {"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}.get(method, "other")


def _seconds(text: str) -> float:
    return min(max(float(text), 0.05), 60.0) if text.isdigit() else 1.0


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Whole lines, however long; the rest without an end is dropped."""
    rest = b""
    async for block in response.content.iter_any():
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            if line:
                yield line
