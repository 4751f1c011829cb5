"""What a sandbox keeps of its execs."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from pathlib import Path

import pytest

from sshgate.config.model import Profile, SandboxPlace
from sshgate.errors import ProgramMissing
from sshgate.providers.kubernetes.api.client import ApiServer
from sshgate.providers.kubernetes.api.objects import Meta, Pod, PodSpec
from sshgate.providers.kubernetes.deletion import nothing_to_remove
from sshgate.providers.kubernetes.sandbox import KubernetesSandbox
from sshgate.sandbox.side_execs import ExecLimits
from tests.unit.apiserver import write_kubeconfig

REFUSAL = b"\x03" + json.dumps({"status": "Failure", "message": "executable file `x` not found"}).encode()
FRAMES = bytes([0x82, len(REFUSAL)]) + REFUSAL + b"\x88\x02\x03\xe8"


async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Upgrade, and refuse in the same segment."""
    head = await reader.readuntil(b"\r\n\r\n")
    found = re.search(rb"Sec-WebSocket-Key: (\S+)", head, re.IGNORECASE)
    assert found is not None
    accept = base64.b64encode(hashlib.sha1(found[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Protocol: v5.channel.k8s.io\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n" + FRAMES
    )
    await writer.drain()
    writer.close()


async def test_an_exec_that_is_refused_together_with_its_upgrade_is_not_kept(tmp_path: Path) -> None:
    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", f"http://{host}:{port}")
        api = ApiServer(SandboxPlace(kubeconfig=kubeconfig, namespace="test"))
        await api.open()
        pod = Pod(metadata=Meta(name="x", uid="u"), spec=PodSpec(node_name="n"))
        sandbox = KubernetesSandbox(api, pod, Profile(), lambda _: nothing_to_remove(), ExecLimits(), "ada")
        for _ in range(3):
            with pytest.raises(ProgramMissing):
                await sandbox.start(("x",), None)
        assert "0 processes" in repr(sandbox)
        await api.close()
