"""The way in as an operator: an exec straight through the Kubernetes API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from sshgate.config.model import SandboxPlace
from sshgate.providers.kubernetes.api.client import ApiServer
from sshgate.providers.kubernetes.exec.process import ExecProcess
from sshgate.providers.kubernetes.exec.remotecommand import exec_query
from sshgate.stream.interfaces import Process


@asynccontextmanager
async def pod_program(
    cluster: SandboxPlace, pod: str, container: str | None, argv: Sequence[str]
) -> AsyncIterator[Process]:
    """A program in a running pod, on pipes; the pod's default container unless one is named.

    Raises ``GateError`` when the API server does not answer or says no.
    """
    api = ApiServer(cluster)
    await api.open()
    try:
        socket = await api.websocket(api.path("pods", pod, "exec"), exec_query(container or "", argv, False))
        process = ExecProcess(socket, False, _Unsupervised())
        try:
            yield process
        finally:
            await process.close()
    finally:
        await api.close()


class _Unsupervised:
    """A pod that is not ours: the end of its stdin ends the far end, and the stream says itself whether it is whole."""

    def signal(self, pid: int, name: str, foreground: bool) -> None:
        """The far end needs no signal."""

    async def acknowledge_output(self, pid: int) -> None:
        """It asks for no end mark."""

    async def end_reason(self) -> str | None:
        """Nobody watches this pod."""
        return None

    async def kill_reason(self) -> str | None:
        """Nobody watches this pod."""
        return None

    async def process_gone(self, pid: int) -> bool:
        """Unknown; the stream's own end is what counts."""
        return True

    def ended(self, process: ExecProcess) -> None:
        """Nothing is counted here."""
