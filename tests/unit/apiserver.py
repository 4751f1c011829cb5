"""A small API server on loopback: real HTTP and websockets, answers given by the test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from sshgate.config.model import SandboxPlace
from sshgate.providers.kubernetes.api.client import ApiServer

Handler = Callable[[Any], Awaitable[web.StreamResponse]]

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: test
contexts: [{{name: test, context: {{cluster: test, user: test}}}}]
clusters: [{{name: test, cluster: {{server: "{url}"}}}}]
users: [{{name: test, user: {{token: {token}}}}}]
"""


def write_kubeconfig(path: Path, url: str, token: str = "first") -> Path:
    path.write_text(KUBECONFIG.format(url=url, token=token))
    return path


def status(code: int, reason: str = "", message: str = "", headers: dict[str, str] | None = None) -> web.Response:
    """A refusal as the API server words it."""
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reason,
        "message": message,
        "code": code,
    }
    return web.json_response(body, status=code, headers=headers)


def pod(name: str, version: str = "1", **status_fields: Any) -> dict[str, Any]:
    metadata = {"name": name, "uid": f"uid-{name}", "resourceVersion": version}
    return {"kind": "Pod", "metadata": metadata, "spec": {}, "status": status_fields}


class Served:
    """Where it listens, and what was asked."""

    def __init__(self, url: str, kubeconfig: Path) -> None:
        self.url = url
        self.kubeconfig = kubeconfig
        self.requests: list[str] = []

    def place(self, api_timeout: float = 2.0) -> SandboxPlace:
        return SandboxPlace(kubeconfig=self.kubeconfig, namespace="test", gateway="test", api_timeout=api_timeout)


@asynccontextmanager
async def serve(handler: Handler, directory: Path) -> AsyncIterator[Served]:
    """Answer every request by ``handler`` while the body runs."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        served.requests.append(f"{request.method} {request.path}")
        return await handler(request)

    runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    url = f"http://{host}:{port}"
    served = Served(url, write_kubeconfig(directory / "kubeconfig", url))
    try:
        yield served
    finally:
        await runner.cleanup()


@asynccontextmanager
async def connected(served: Served, api_timeout: float = 2.0, reread: float = 5.0) -> AsyncIterator[ApiServer]:
    """A client of it."""
    api = ApiServer(served.place(api_timeout), reread)
    await api.open()
    try:
        yield api
    finally:
        await api.close()


async def stream(request: web.Request, lines: AsyncIterator[dict[str, Any]]) -> web.StreamResponse:
    """Answer with JSON lines, as a watch."""
    response = web.StreamResponse()
    await response.prepare(request)
    try:
        async for line in lines:
            await response.write(json.dumps(line).encode() + b"\n")
    except (ConnectionResetError, asyncio.CancelledError):
        pass
    return response
