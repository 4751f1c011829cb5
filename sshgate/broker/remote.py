"""The connection between a gateway and a broker in another process.

The broker begins with a challenge. The gateway answers with a preamble that states whose connection it is,
encrypted and authenticated (AES-GCM) with a key made of the secret that both have, and bound to the challenge: who
records one cannot use it again. What follows are the bytes from the sandbox and those to it. With a certificate, all
of it is inside TLS, where the end of one direction is the end of both (``SocketStream.write_eof``).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sshgate.access.identity import endpoint
from sshgate.access.listening import Accepting
from sshgate.access.tls import load_certificate
from sshgate.broker.caller import NO_KEYS, BrokerConnections, Caller, Refused
from sshgate.broker.protocols import PROTOCOLS, bare
from sshgate.broker.sockets import SocketStream, answer_last, begin, reading, watch
from sshgate.config.model import Broker as Settings
from sshgate.config.model import Config
from sshgate.errors import CannotListen, ConfigError
from sshgate.stream.interfaces import PromptStream
from sshgate.stream.splice import splice
from sshgate.stream.tasks import TaskSet, cancel, within
from sshgate.telemetry.rate_limit import RateLimit

HELLO = b"sshgate broker 1\n"
CHALLENGE = 16
NONCE = 12
SHORTEST_SECRET = 32
# Bytes of a preamble. Names are short, and a user brings a few keys of 4 KiB at most.
LONGEST_PREAMBLE = 32 * 1024
PREAMBLE_SECONDS = 5.0
# Connections that have not shown yet that they come from a gateway. With TLS, each keeps a buffer of 256 KiB.
MOST_UNPROVEN = 256
# How long a sandbox's connection waits for a broker that is being replaced. Agents wait as long.
WAIT_SECONDS = 25.0
AGAIN_SECONDS = 0.5
CONNECT_SECONDS = 5.0
# For the beginning of a request that is answered without a broker, and its bytes, from which the provider is known.
ASKED_SECONDS = 5.0
_ASKED = re.compile(rb"[A-Z]{1,10} /([a-z]+)/")
_ASKED_BYTES = 24

log = structlog.get_logger("sshgate.broker")


def read_secret(path: Path) -> bytes:
    """Return the key that is made of the secret in a file. Raises ``ConfigError``."""
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise ConfigError([f"broker.secret: {path} cannot be read: {error.strerror}."]) from error
    if len(secret) < SHORTEST_SECRET:
        raise ConfigError([f"broker.secret: {path} has fewer than {SHORTEST_SECRET} bytes."])
    return hashlib.sha256(b"sshgate broker preamble\0" + secret).digest()


def _tls(settings: Settings, purpose: ssl.Purpose) -> ssl.SSLContext | None:
    """Return how one side speaks TLS, if it does. Raises ``ConfigError`` if its files cannot be used."""
    if settings.certificate is None:
        return None
    try:
        if purpose is ssl.Purpose.CLIENT_AUTH:
            context = ssl.create_default_context(purpose)
            load_certificate(context, settings.certificate, settings.private_key)
        else:
            context = ssl.create_default_context(purpose, cafile=settings.certificate)
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it is trusted without its signer
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or error
        raise ConfigError([f"broker.certificate, broker.private_key: cannot be used: {reason}."]) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def seal(key: bytes, challenge: bytes, caller: Caller, brought: Mapping[str, str]) -> bytes:
    """Return the preamble of one connection."""
    facts = {
        "user": caller.user, "groups": list(caller.groups), "profile": caller.profile, "sandbox": caller.sandbox,
        "uid": caller.uid, "name": caller.name, "keys": dict(brought),
    }  # fmt: skip
    nonce = os.urandom(NONCE)
    sealed = nonce + AESGCM(key).encrypt(nonce, json.dumps(facts).encode(), HELLO + challenge)
    return len(sealed).to_bytes(4, "big") + sealed


def unseal(key: bytes, challenge: bytes, sealed: bytes) -> tuple[Caller, dict[str, str]]:
    """Return what a preamble says, without its length. Raises ``ValueError`` if no gateway has made it for this."""
    try:
        plain = AESGCM(key).decrypt(sealed[:NONCE], sealed[NONCE:], HELLO + challenge)
    except InvalidTag:
        raise ValueError("not by a gateway") from None
    facts: dict[str, Any] = json.loads(plain)
    names = [facts[field] for field in ("profile", "sandbox", "uid", "name")]
    caller = Caller(facts["user"], tuple(facts["groups"]), *names)
    return caller, facts["keys"]


class RemoteBroker:
    """A gateway's ``BrokerConnections`` to ``sshgate broker``."""

    def __init__(self, settings: Settings) -> None:
        """Raises ``ConfigError`` if the secret cannot be used."""
        assert settings.listen is not None
        self._address = settings.listen
        self._key = read_secret(settings.secret)
        self._tls = _tls(settings, ssl.Purpose.SERVER_AUTH)
        self._tasks = TaskSet()
        self._warnings = RateLimit()  # sandboxes decide how often they ask

    def __repr__(self) -> str:
        return f"<RemoteBroker at {self._address}, {len(self._tasks)} connections>"

    async def open(self) -> None:
        """Do nothing: each connection of a sandbox makes one to the broker, which may not run yet."""

    def reconfigure(self, config: Config) -> None:
        """Do nothing: the broker reads its settings itself."""

    async def close(self) -> None:
        await self._tasks.cancel()

    async def serve(self, stream: PromptStream, caller: Caller, brought: Mapping[str, str] = NO_KEYS) -> None:
        task = self._tasks.start(self._serve(stream, caller, brought))
        try:
            await asyncio.wait({task})
        finally:
            await cancel(task)

    async def _serve(self, stream: PromptStream, caller: Caller, brought: Mapping[str, str]) -> None:
        try:
            broker = await self._connect(stream, caller, brought)
            if broker is not None:
                await splice(stream, broker)
            else:
                await _say_away(stream)
        finally:
            stream.close()

    async def _connect(self, stream: PromptStream, caller: Caller, brought: Mapping[str, str]) -> SocketStream | None:
        loop = asyncio.get_running_loop()
        until = loop.time() + WAIT_SECONDS
        while True:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    return await self._attempt(stream, caller, brought)
            except (OSError, TimeoutError, EOFError, ValueError) as error:
                if loop.time() > until:
                    if self._warnings.due(""):
                        log.warning("broker.unreachable", address=str(self._address), reason=type(error).__name__)
                    return None
            await asyncio.sleep(AGAIN_SECONDS)

    async def _attempt(self, stream: PromptStream, caller: Caller, brought: Mapping[str, str]) -> SocketStream:
        loop = asyncio.get_running_loop()
        reader, protocol = reading()
        host, port = self._address.host, self._address.port
        transport, _ = await loop.create_connection(lambda: protocol, host, port, ssl=self._tls)
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        try:
            watch(writer)
            hello = await reader.readexactly(len(HELLO) + CHALLENGE)
            if not hello.startswith(HELLO):
                raise ValueError("not a broker")
            writer.write(seal(self._key, hello[len(HELLO) :], caller, brought))
            await writer.drain()
        except BaseException:
            writer.close()
            raise
        reader.sink = stream
        return SocketStream(reader, writer)


async def _say_away(stream: PromptStream) -> None:
    """Answer a request in the form of its provider, so that an agent shows the sentence and tries again."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ASKED_SECONDS):
            first, _ = await begin(stream, _ASKED_BYTES)
            if first:
                found = _ASKED.match(first)
                protocol = PROTOCOLS.get(found[1].decode()) if found is not None else None
                error = Refused("the broker cannot be reached; try again in a moment.", 503, {"x-should-retry": "true"})
                await answer_last(stream, bare(protocol, error))


class BrokerListener:
    """The listening half, in ``sshgate broker``: hands on the connections that gateways have proven to be theirs."""

    def __init__(self, settings: Settings, broker: BrokerConnections) -> None:
        """Raises ``ConfigError`` if the secret cannot be used."""
        assert settings.listen is not None
        self._address = settings.listen
        self._key = read_secret(settings.secret)
        self._tls = _tls(settings, ssl.Purpose.CLIENT_AUTH)
        self._broker = broker
        self._unproven = 0
        self._warnings = RateLimit()
        # Not asyncio's server: that would count a connection only after its TLS handshake.
        self._accepting = Accepting(self._came)
        self._tasks = TaskSet()

    def __repr__(self) -> str:
        return f"<BrokerListener {self._address}, {len(self._tasks)} connections>"

    async def open(self) -> None:
        """Start to listen. Raises ``CannotListen`` if the address cannot be bound."""
        try:
            await self._accepting.open(self._address)
        except OSError as error:
            raise CannotListen("broker.listen", self._address, error) from error
        self._accepting.start()

    def stop_accepting(self) -> None:
        """Accept no more connections. Gateways try again, and find the next broker."""
        self._accepting.close()

    async def drain(self, seconds: float) -> None:
        """Wait until all connections have ended, ``seconds`` at most."""
        await within(seconds, self._tasks.join())

    async def close(self) -> None:
        """Cut the remaining connections."""
        self.stop_accepting()
        await self._tasks.cancel()

    def _came(self, accepted: socket.socket) -> None:
        if self._unproven >= MOST_UNPROVEN:
            accepted.close()
        else:
            self._unproven += 1
            self._tasks.start(self._serve(accepted))

    async def _serve(self, accepted: socket.socket) -> None:
        writer: asyncio.StreamWriter | None = None
        address = "?"
        try:
            try:
                address = endpoint(accepted.getpeername())[0]
                async with asyncio.timeout(PREAMBLE_SECONDS):
                    reader, writer = await self._streams(accepted)
                    caller, brought = await self._proven(reader, writer)
            finally:
                self._unproven -= 1
        except (OSError, TimeoutError, EOFError):
            pass
        except (ValueError, KeyError, TypeError):
            if self._warnings.due(address):
                log.warning("broker.stranger", address=address)
        else:
            await self._broker.serve(SocketStream(reader, writer), caller, brought)
        finally:
            if writer is not None:
                writer.close()
            else:
                accepted.close()

    async def _streams(self, accepted: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        reader, protocol = reading()
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, accepted, ssl=self._tls)
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def _proven(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[Caller, dict[str, str]]:
        watch(writer)
        challenge = os.urandom(CHALLENGE)
        writer.write(HELLO + challenge)
        await writer.drain()
        length = int.from_bytes(await reader.readexactly(4), "big")
        if not NONCE < length <= LONGEST_PREAMBLE:
            raise ValueError("no preamble")
        return unseal(self._key, challenge, await reader.readexactly(length))
