"""The API server gone, stalled and back, seen through a proxy in front of the real one."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from sshgate.config.model import Profile
from sshgate.errors import Unavailable
from sshgate.providers.kubernetes.provider import KubernetesProvider
from sshgate.sandbox.enter import park
from sshgate.sandbox.interfaces import Order
from sshgate.stream.interfaces import Lost
from tests.contract.kubernetes_namespace import BUSYBOX, Namespace, kubeconfig
from tests.contract.programs import begin, everything

pytestmark = pytest.mark.cluster

API_SECONDS = 1.5


class Proxy:
    """A TCP proxy that can be cut (nothing listens) and whose answers can be held back."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._answering = asyncio.Event()
        self._answering.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Connections break, new ones are refused."""
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def stall(self) -> None:
        """Requests arrive, answers do not."""
        self._answering.clear()

    def go_on(self) -> None:
        self._answering.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            there, back = await asyncio.open_connection(*self._target)
            try:
                await asyncio.gather(self._copy(reader, back, False), self._copy(there, writer, True))
            finally:
                back.transport.abort()
                writer.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: bool) -> None:
        while data := await reader.read(1 << 16):
            if answers:
                await self._answering.wait()
            writer.write(data)
            await writer.drain()
        writer.write_eof() if writer.can_write_eof() else None


@pytest.fixture
async def proxy(tmp_path: Path) -> AsyncIterator[Proxy]:
    config = yaml.safe_load(kubeconfig().read_text())
    found = re.fullmatch(r"https://([^:/]+):(\d+)/?", config["clusters"][0]["cluster"]["server"])
    assert found
    made = Proxy(found[1], int(found[2]))
    await made.listen()
    cluster = config["clusters"][0]["cluster"]
    cluster["server"] = f"https://127.0.0.1:{made.port}"
    # Also shows that a name other than the address can be checked.
    cluster["tls-server-name"] = found[1]
    assert base64.b64decode(cluster.get("certificate-authority-data", ""))
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    yield made
    made.go_on()
    await made.cut()


@pytest.fixture
async def provider(place: Namespace, proxy: Proxy, tmp_path: Path) -> AsyncIterator[KubernetesProvider]:
    async with place.provider(kubeconfig=tmp_path / "kubeconfig", api_timeout=API_SECONDS) as made:
        yield made


def order() -> Order:
    return Order(Profile(image=BUSYBOX), "alice", secrets.token_hex(5))


async def until_no_pod_lives(place: Namespace) -> None:
    for _ in range(400):
        if not await place.living():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"pods left: {await place.living()}")


async def test_running_programs_are_lost_and_new_sandboxes_unavailable(
    place: Namespace, proxy: Proxy, provider: KubernetesProvider
) -> None:
    sandbox = await provider.create(order(), lambda text: None)
    process = await begin(sandbox, b"sleep 100")
    await proxy.cut()
    async with asyncio.timeout(10):
        outcome = (await everything(process))[2]
    assert isinstance(outcome, Lost)
    assert outcome.status == 255
    with pytest.raises(Unavailable, match="cannot be reached"):
        await provider.create(order(), lambda text: None)
    with pytest.raises(Unavailable, match="cannot be reached"):
        await sandbox.start(("/bin/sh",), None)
    await sandbox.delete()

    await proxy.listen()
    again = await provider.create(order(), lambda text: None)
    await (await park(again, None)).close()
    await again.delete()
    await until_no_pod_lives(place)


async def test_a_create_without_an_answer_is_unavailable_in_time_and_its_pod_removed(
    place: Namespace, proxy: Proxy, provider: KubernetesProvider
) -> None:
    proxy.stall()
    began = time.monotonic()
    with pytest.raises(Unavailable, match="did not answer within"):
        await provider.create(order(), lambda text: None)
    assert time.monotonic() - began < API_SECONDS + 5
    proxy.go_on()
    await until_no_pod_lives(place)


async def test_a_cancelled_create_leaves_no_pod(place: Namespace, proxy: Proxy, provider: KubernetesProvider) -> None:
    proxy.stall()
    task = asyncio.create_task(provider.create(order(), lambda text: None))
    for _ in range(100):
        if await place.living():
            break
        await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    proxy.go_on()
    await until_no_pod_lives(place)


async def test_a_stalled_start_ends_in_time(place: Namespace, proxy: Proxy, provider: KubernetesProvider) -> None:
    sandbox = await provider.create(order(), lambda text: None)
    proxy.stall()
    began = time.monotonic()
    with pytest.raises(Unavailable, match="did not answer within"):
        await sandbox.start(("/bin/sh", "-c", "echo in"), None)
    assert time.monotonic() - began < 3 * API_SECONDS + 5
    proxy.go_on()
    await sandbox.delete()
    await until_no_pod_lives(place)


async def test_a_pod_deleted_while_the_watch_was_down_is_noticed(
    place: Namespace, proxy: Proxy, provider: KubernetesProvider
) -> None:
    sandbox = await provider.create(order(), lambda text: None)
    await (await park(sandbox, None)).close()
    await proxy.cut()
    await place.api.delete_pod(sandbox.id, grace=0)
    await proxy.listen()
    for _ in range(400):
        if "ended" in repr(sandbox):
            break
        await asyncio.sleep(0.02)
    assert "ended" in repr(sandbox)


async def test_closing_is_bounded_while_the_api_server_is_gone(place: Namespace, proxy: Proxy, tmp_path: Path) -> None:
    """What could not be deleted is left to the next life."""
    provider = KubernetesProvider(place.place(kubeconfig=tmp_path / "kubeconfig", api_timeout=API_SECONDS))
    await provider.open()
    await provider.create(order(), lambda text: None)
    await proxy.cut()
    began = time.monotonic()
    await provider.close()
    assert time.monotonic() - began < 10
    async with place.provider():
        await until_no_pod_lives(place)
