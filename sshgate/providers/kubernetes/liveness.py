"""Asking a gateway whether it lives, past the API server: the second sign, before what it holds is deleted.

Each gateway answers at a socket of its machine's kernel (Linux's abstract ones, which nobody has to clean up and which
end with their process), and in a pod at a port of the pod's address as well. Where that is, and a secret, stand in its
Lease, which only gateways read: an answer is a digest of what was asked, so that nobody else's port counts.
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

PORT = 9465
"""Where gateways in pods answer; the manifests open it between gateways."""
ADDRESS_VARIABLE = "SSHGATE_POD_IP"
ASK_SECONDS = 2.0
AT_ONCE = 8
"""Questions that are answered, and asked, at a time: more than there are gateways."""
_BYTES = 32
_TURNING, _STANDING = b"turning", b"standing"

log = structlog.get_logger("sshgate.sandbox.kubernetes")


class Door(msgspec.Struct, frozen=True):
    """Where a life answers, as it is written in its Lease."""

    key: str
    machine: str | None = None
    """The kernel and the network namespace whose sockets it uses; ``None``: it has none."""
    address: str | None = None
    port: int = PORT

    def __repr__(self) -> str:
        return f"<Door {self.address or self.machine}>"


class Sign(enum.Enum):
    """What asking has shown."""

    ALIVE = enum.auto()
    STANDING = enum.auto()
    """Its process is there, and its event loop has not turned for long."""
    GONE = enum.auto()
    UNKNOWN = enum.auto()
    """No answer: it may be stopped, or out of reach from here."""


def machine() -> str | None:
    """Names the kernel and network namespace that we run in; ``None``: this system has no abstract sockets."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/net').stat().st_ino}"
    except OSError:
        return None


def free_name(namespace: str, name: str) -> tuple[str, socket.socket | None]:
    """``name``, or one like it that no other gateway of this machine has; it is ours until the socket is closed."""
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
async def answering(turns: Callable[[], bool]) -> AsyncIterator[Door]:
    """Answer while the body runs; ``turns`` says whether the gateway's event loop does."""
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
            pass  # who asks and goes away wants no answer
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
                server = await asyncio.start_server(answer, address, PORT, limit=_BYTES)
                await stack.enter_async_context(server)
            except OSError as error:
                log.warning("lifesign.unheard", address=address, port=PORT, reason=error.strerror or str(error))
                address = None
        yield Door(key, here, address or None)


def ask(door: Door, seconds: float = ASK_SECONDS) -> Sign:
    """Ask, and wait for the answer, in a thread that may wait."""
    address: str | tuple[str, int]
    if door.machine is not None and door.machine == machine():
        family, address = socket.AF_UNIX, _abstract(door.key)
    elif door.address is not None:
        family, address = (socket.AF_INET6 if ":" in door.address else socket.AF_INET), (door.address, door.port)
    else:
        return Sign.UNKNOWN
    question = secrets.token_bytes(_BYTES)
    try:
        with socket.socket(family, socket.SOCK_STREAM) as asking:
            asking.settimeout(seconds)
            asking.connect(address)
            asking.sendall(question)
            answer = asking.recv(_BYTES)
    except ConnectionRefusedError:
        return Sign.GONE
    except (OSError, ValueError, OverflowError):
        return Sign.UNKNOWN
    if len(answer) < _BYTES:
        return Sign.UNKNOWN
    if hmac.compare_digest(answer, _digest(door.key, _TURNING, question)):
        return Sign.ALIVE
    if hmac.compare_digest(answer, _digest(door.key, _STANDING, question)):
        return Sign.STANDING
    return Sign.GONE  # another life answers there now


class Inquiry:
    """The doors that Leases have shown, and the questions that are under way."""

    def __init__(self) -> None:
        self._doors: dict[str, Door] = {}
        self._asked: dict[str, asyncio.Task[Sign]] = {}

    def __repr__(self) -> str:
        return f"<Inquiry {len(self._doors)} doors, {len(self._asked)} asked>"

    def know(self, doors: Iterable[tuple[str, Door | None]]) -> None:
        """What the Leases of these lives say now."""
        self._doors.update((life, door) for life, door in doors if door is not None)

    def forget(self, but: Iterable[str]) -> None:
        """Keep the doors of these lives alone."""
        kept = set(but)
        self._doors = {life: door for life, door in self._doors.items() if life in kept}

    async def here(self) -> list[str]:
        """Lives whose gateways ran in our place and are gone: the kernel itself says so."""
        mine = machine()
        lives = [life for life, door in self._doors.items() if door.machine is not None and door.machine == mine]
        signs = await asyncio.gather(*(asyncio.to_thread(ask, self._doors[life]) for life in lives))
        return [life for life, sign in zip(lives, signs, strict=True) if sign is Sign.GONE]

    async def ask(self, presence: Membership, seconds: float) -> None:
        """Ask those that are suspected to be dead. What is not answered within ``seconds`` counts the next time."""
        for life in presence.suspects():
            if life in self._doors and life not in self._asked and len(self._asked) < AT_ONCE:
                self._asked[life] = asyncio.create_task(asyncio.to_thread(ask, self._doors[life]))
        if self._asked:
            await asyncio.wait(self._asked.values(), timeout=seconds)
        for life, task in [(life, task) for life, task in self._asked.items() if task.done()]:
            del self._asked[life]
            sign = task.result()
            if sign is Sign.ALIVE:
                presence.answered(life)
            elif sign in (Sign.GONE, Sign.STANDING):
                presence.vanished(life)

    async def close(self) -> None:
        """Wait for no more answers."""
        for task in self._asked.values():
            task.cancel()
        await asyncio.gather(*self._asked.values(), return_exceptions=True)
        self._asked.clear()


def _abstract(text: str) -> str:
    return "\0sshgate-" + hashlib.sha256(text.encode()).hexdigest()[:32]


def _digest(key: str, word: bytes, asked: bytes) -> bytes:
    return hmac.digest(key.encode(), word + asked, "sha256")
