"""Rows of forwarded connections, against the time that the API server takes to upgrade an exec."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncssh

from sshgate.config.model import Profile, SandboxPlace
from sshgate.providers.kubernetes.provider import KubernetesProvider
from sshgate.sandbox.interfaces import Order, Sandbox
from tests.bench.measure import Row, Samples, ratio
from tests.bench.scene import Scene
from tests.rig.cluster import IMAGE, Namespace
from tests.rig.library import connection
from tests.rig.ssh import Ssh

# Greets each client, so that the end of the way shows at this end.
GREETER = (
    "import socket;s=socket.create_server(('127.0.0.1',34567),backlog=99);print('up',flush=True)\n"
    "while True:\n c,_=s.accept();c.sendall(b'!');c.close()"
)


def forward(scene: Scene, runs: int) -> Row:
    """A further connection to a server in the pod, until its greeting is here."""
    return _row("forward", scene, runs, first=False)


def forward_first(scene: Scene, runs: int) -> Row:
    """The first one of an ssh connection: it starts the relay, so it is held against an exec that has spoken."""
    return _row("forward-first", scene, runs, first=True)


def _row(name: str, scene: Scene, runs: int, first: bool) -> Row:
    _, ssh = scene.gateway("kubernetes", scope="connection")
    ours = Samples(f"ssh -L: {'first' if first else 'new'} connection")
    base = Samples("exec: first byte of `echo`" if first else "exec: upgrade")
    asyncio.run(_measure(ssh, scene.namespace, runs, first, ours, base))
    return ratio(name, "s", ours, base, most=2.0, least=None)


async def _measure(ssh: Ssh, place: Namespace, runs: int, first: bool, ours: Samples, base: Samples) -> None:
    async with _pod(place) as pod:
        for turn in range(runs + 1):
            async with connection(ssh) as made:
                server = await made.create_process(f"exec python3 -c {_quoted(GREETER)}", encoding=None)
                assert await server.stdout.readline() == b"up\n"
                if not first:
                    await _greeted(made)
                took = await _timed(lambda: _greeted(made))
            compared = await _timed(lambda: _spoken(pod) if first else pod.start(("/bin/true",), None))
            if turn:
                ours.values.append(took)
                base.values.append(compared)


async def _greeted(made: asyncssh.SSHClientConnection) -> None:
    reader, writer = await made.open_connection("localhost", 34567, encoding=None)
    assert await reader.readexactly(1) == b"!"
    writer.close()


async def _spoken(pod: Sandbox) -> None:
    process = await pod.start(("/bin/echo", "up"), None)
    assert await process.read()
    await process.close()


@asynccontextmanager
async def _pod(place: Namespace) -> AsyncIterator[Sandbox]:
    where = SandboxPlace(kubeconfig=place.kubeconfig, namespace=place.name, gateway="bench-forward")
    provider = KubernetesProvider(where)
    await provider.open()
    try:
        sandbox = await provider.create(Order(Profile(image=IMAGE), "bench", secrets.token_hex(4)), lambda _: None)
        await sandbox.start(("/bin/true",), None)
        yield sandbox
    finally:
        await provider.close()


async def _timed(work: Callable[[], Awaitable[object]]) -> float:
    start = time.perf_counter()
    await work()
    return time.perf_counter() - start


def _quoted(program: str) -> str:
    return "'" + program.replace("'", "'\\''") + "'"
