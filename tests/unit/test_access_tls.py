"""TLS at the door: a stranger's smallest records are decrypted in turns, and nothing of a stream is lost."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import cast

import pytest
import uvloop

from sshgate.access.listening import Listener
from sshgate.config.model import Address
from sshgate.telemetry.events import Events

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
# Without turns, a socket's buffer full of records of one byte takes 300 ms and more.
RECORDS = (4 << 20) // 23
LATE = 0.05


class Takes(asyncio.Protocol):
    """Counts what comes; pauses now and then."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.size = 0
        self.all = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.size += len(data)
        if len(data) > 14_000:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(0.001, self._transport.resume_reading)
        if self.size == self.most:
            self.all.set_result(None)


@pytest.fixture
def server(tmp_path: Path) -> ssl.SSLContext:
    key, cert = tmp_path / "key", tmp_path / "cert"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=x"], check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


def _send(port: int, pieces: int, piece: bytes) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    came, goes = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(came, goes)
    with socket.create_connection(("127.0.0.1", port)) as wire:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                wire.sendall(goes.read())
                came.write(wire.recv(65536))
        for _ in range(pieces):
            tls.write(piece)
        wire.sendall(goes.read())
        wire.settimeout(20)
        while wire.recv(65536):
            pass


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(("pieces", "piece"), [(RECORDS, b"x"), (256, bytes(16384))])
def test_records_are_decrypted_in_turns(loop: str, pieces: int, piece: bytes, server: ssl.SSLContext) -> None:
    async def work() -> None:
        takes = Takes(pieces * len(piece))
        listener = Listener(lambda peer, cut: takes, Events(), tls=server)
        bound = await listener.open(Address("127.0.0.1", 0))
        listener.start()
        sending = asyncio.create_task(asyncio.to_thread(_send, bound[0].port, pieces, piece))
        latest = 0.0
        async with asyncio.timeout(20):
            while not takes.all.done():
                # Of the processor's time: a busy machine is none of it.
                began = time.thread_time()
                await asyncio.sleep(0.01)
                latest = max(latest, time.thread_time() - began)
        takes._transport.abort()
        await sending
        listener.close()
        assert latest < LATE

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(work())
