"""Servers on loopback that stand in for the internet, and a broker's proxy in front of them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import http.server
import ssl
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sshgate.broker.addresses import Address
from sshgate.broker.caller import Caller
from sshgate.broker.egress import Attempt, EgressProxy
from sshgate.broker.sockets import LIMIT, SocketStream
from sshgate.config.model import Egress

CALLER = Caller("ada", (), "default", "sandbox-1", "uid-1", "work")
LOOPBACK = ("127.0.0.0/8",)


@dataclass
class Names:
    """A resolver with a table. Each lookup of a name takes the next of its answers; the last one stays."""

    table: dict[str, list[list[str]]]
    asked: list[str] = field(default_factory=list)

    async def __call__(self, name: str) -> Sequence[Address]:
        self.asked.append(name)
        answers = self.table.get(name)
        if not answers:
            raise OSError("no such name")
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return [ip_address(one) for one in answer]


@dataclass
class Proxy:
    """A proxy that listens on loopback, and what it has reported."""

    port: int
    attempts: list[Attempt]
    names: Names

    @property
    def judged(self) -> list[tuple[str, int, str | None]]:
        return [(one.host, one.port, one.refused) for one in self.attempts if not one.ended]

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, head: str, after: bytes = b"") -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
        """Send a request's head; returns the head of the answer."""
        reader, writer = await self.open()
        writer.write(head.encode() + b"\r\n\r\n" + after)
        try:
            answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        except asyncio.IncompleteReadError as error:
            answer = error.partial
        return answer, reader, writer


@contextlib.asynccontextmanager
async def proxy(
    allow: Sequence[str], names: dict[str, list[list[str]]], private: Sequence[str] = LOOPBACK
) -> AsyncIterator[Proxy]:
    """A proxy for one sandbox, which may connect to ``allow``."""
    egress = Egress(tuple(allow), tuple(private))
    attempts: list[Attempt] = []
    resolver = Names(names)
    serving = EgressProxy(lambda caller: egress, resolver, lambda caller, attempt: attempts.append(attempt))
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await serving.serve(SocketStream(reader, writer), CALLER)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=LIMIT)
    try:
        yield Proxy(server.sockets[0].getsockname()[1], attempts, resolver)
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


def authority(directory: Path, names: Sequence[str]) -> tuple[Path, ssl.SSLContext]:
    """A certificate for these names, its own authority; returns its file and a server's context."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stand-in")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert, private = directory / "ca.pem", directory / "ca.key"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, private)
    return cert, context


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@contextlib.contextmanager
def web_server(root: Path, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve a directory on loopback; gives the port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(root)))
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
