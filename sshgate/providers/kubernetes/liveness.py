"""Liveness probes between gateways, past the API server: a second sign before what a gateway owns is deleted.

Each instance answers at an abstract Unix socket (Linux), which vanishes with its process, and in a pod also at a port
of the pod's address. Its Lease, which only gateways can read, holds both addresses and a secret key. The answer is a
digest of the question with that key, so another program at the same address cannot pass for the instance.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import hashlib
import hmac
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import structlog

from sshgate.lifecycle.membership import Membership
from sshgate.stream.tasks import cancel

PORT = 9465
"""The port at which gateways in pods answer, their other workers at the next ones; the manifests open these."""
ADDRESS_VARIABLE = "SSHGATE_POD_IP"
ASK_SECONDS = 2.0
AT_ONCE = 8
"""The most probes that are answered, or sent, at a time; more than there are gateways."""
_BYTES = 32
_TURNING, _STANDING = b"turning", b"standing"

log = structlog.get_logger("sshgate.sandbox.kubernetes")


class LivenessEndpoint(msgspec.Struct, frozen=True):
    """Where an instance answers liveness probes, as written in its Lease."""

    key: str
    machine: str | None = None
    """The kernel and network namespace of its abstract socket; ``None`` if it has none."""
    address: str | None = None
    port: int = PORT

    def __repr__(self) -> str:
        return f"<LivenessEndpoint {self.address or self.machine}>"


class ProbeResult(enum.Enum):
    """The result of a probe."""

    ALIVE = enum.auto()
    STANDING = enum.auto()
    """The process exists, but its event loop is stuck."""
    GONE = enum.auto()
    UNKNOWN = enum.auto()
    """No answer: it may be stopped, or unreachable from here."""


def machine() -> str | None:
    """Identifies the kernel and network namespace we run in; ``None`` if there are no abstract sockets."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/net').stat().st_ino}"
    except OSError:
        return None


def free_name(namespace: str, name: str) -> tuple[str, socket.socket | None]:
    """Reserve ``name``, or ``name-N`` if another gateway on this machine has it, in this ``namespace``.

    The name is ours until the returned socket is closed. Without abstract sockets there is none, and no check.
    """
    if machine() is None:
        return name, None
    for number in range(1, 100):
        wanted = name if number == 1 else f"{name}-{number}"
        ours = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            ours.bind(_abstract(f"name {namespace} {wanted}"))
            return wanted, ours
        except OSError:
            ours.close()
    return f"{name}-{secrets.token_hex(4)}", None


@asynccontextmanager
async def answering(turns: Callable[[], bool], port: int = PORT) -> AsyncIterator[LivenessEndpoint]:
    """Answer liveness probes while the body runs; ``turns`` returns whether the gateway's event loop still runs."""
    key = secrets.token_hex(16)
    open_now = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now
        open_now += 1
        try:
            if open_now <= AT_ONCE:
                async with asyncio.timeout(ASK_SECONDS):
                    asked = await reader.readexactly(_BYTES)
                    writer.write(_digest(key, _TURNING if turns() else _STANDING, asked))
                    await writer.drain()
        except (OSError, EOFError, TimeoutError):
            pass  # the client has gone: no answer is needed
        finally:
            open_now -= 1
            writer.close()

    here, address = machine(), os.environ.get(ADDRESS_VARIABLE)
    async with contextlib.AsyncExitStack() as stack:
        if here is not None:
            try:
                server = await asyncio.start_unix_server(answer, _abstract(key), limit=_BYTES)
                await stack.enter_async_context(server)
            except OSError:
                here = None
        if address:
            try:
                server = await asyncio.start_server(answer, address, port, limit=_BYTES)
                await stack.enter_async_context(server)
            except OSError as error:
                log.warning("lifesign.unheard", address=address, port=port, reason=error.strerror or str(error))
                address = None
        yield LivenessEndpoint(key, here, address or None, port)


def probe(endpoint: LivenessEndpoint, seconds: float = ASK_SECONDS) -> ProbeResult:
    """Probe an instance; blocks for ``seconds`` per step at most, so call it in a thread. Never raises."""
    address: str | tuple[str, int]
    if endpoint.machine is not None and endpoint.machine == machine():
        family, address = socket.AF_UNIX, _abstract(endpoint.key)
    elif endpoint.address is not None:
        family, address = (
            (socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET),
            (endpoint.address, endpoint.port),
        )
    else:
        return ProbeResult.UNKNOWN
    challenge = secrets.token_bytes(_BYTES)
    try:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(seconds)
            connection.connect(address)
            connection.sendall(challenge)
            answer = connection.recv(_BYTES)
    except ConnectionRefusedError:
        # Over IP a network policy may have refused it (kube-router rejects), or the container may be starting again.
        return ProbeResult.GONE if family is socket.AF_UNIX else ProbeResult.UNKNOWN
    except (OSError, ValueError, OverflowError):
        return ProbeResult.UNKNOWN
    if len(answer) < _BYTES:
        return ProbeResult.UNKNOWN
    if hmac.compare_digest(answer, _digest(endpoint.key, _TURNING, challenge)):
        return ProbeResult.ALIVE
    if hmac.compare_digest(answer, _digest(endpoint.key, _STANDING, challenge)):
        return ProbeResult.STANDING
    return ProbeResult.GONE  # another instance answers there now


class LivenessProber:
    """Probes instances at the addresses in their Leases, and keeps track of the probes under way."""

    def __init__(self) -> None:
        self._endpoints: dict[str, LivenessEndpoint] = {}
        self._asked: dict[str, asyncio.Task[ProbeResult]] = {}

    def learn(self, endpoints: Iterable[tuple[str, LivenessEndpoint | None]]) -> None:
        """Remember the addresses that the Leases of these instances show."""
        self._endpoints.update((instance, endpoint) for instance, endpoint in endpoints if endpoint is not None)

    def forget(self, but: Iterable[str]) -> None:
        """Forget the addresses of all instances except these."""
        kept = set(but)
        self._endpoints = {instance: endpoint for instance, endpoint in self._endpoints.items() if instance in kept}

    async def here(self) -> list[str]:
        """The instances that ran on this kernel and network namespace and have ended: their socket is gone."""
        mine = machine()
        instances = [
            instance
            for instance, endpoint in self._endpoints.items()
            if endpoint.machine is not None and endpoint.machine == mine
        ]
        results = await asyncio.gather(*(asyncio.to_thread(probe, self._endpoints[instance]) for instance in instances))
        return [instance for instance, result in zip(instances, results, strict=True) if result is ProbeResult.GONE]

    async def probe(self, membership: Membership, seconds: float) -> None:
        """Probe the suspects of ``membership`` and report the results to it.

        Waits at most ``seconds``; later answers are reported by the next call.
        """
        for instance in membership.suspects():
            if instance in self._endpoints and instance not in self._asked and len(self._asked) < AT_ONCE:
                self._asked[instance] = asyncio.create_task(asyncio.to_thread(probe, self._endpoints[instance]))
        if self._asked:
            await asyncio.wait(self._asked.values(), timeout=seconds)
        for instance, task in [(instance, task) for instance, task in self._asked.items() if task.done()]:
            del self._asked[instance]
            result = task.result()
            if result is ProbeResult.ALIVE:
                membership.answered(instance)
            elif result in (ProbeResult.GONE, ProbeResult.STANDING):
                membership.vanished(instance)

    async def close(self) -> None:
        """Stop waiting for answers."""
        await cancel(*self._asked.values())
        self._asked.clear()


def _abstract(text: str) -> str:
    return "\0sshgate-" + hashlib.sha256(text.encode()).hexdigest()[:32]


def _digest(key: str, word: bytes, asked: bytes) -> bytes:
    return hmac.digest(key.encode(), word + asked, "sha256")
