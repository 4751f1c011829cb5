"""Copies by an operator: an exec in the pod, directly through the Kubernetes API."""

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
    """Run a program in a running pod, on pipes, and close it at the end of the block.

    Args:
        container: ``None``: the pod's default container.

    Raises:
        GateError: The API server cannot be reached or refuses the exec.
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
    """The ``PodContext`` of a process without a launcher: EOF ends it, and the copy's own protocol shows the end."""

    def signal(self, pid: int, name: str, foreground: bool) -> None:
        """Do nothing: the far end needs no signals."""

    async def acknowledge_output(self, pid: int) -> None:
        """Do nothing: there is no launcher and no end mark."""

    async def end_reason(self) -> str | None:
        """Return ``None``: the pod is not watched."""
        return None

    async def kill_reason(self) -> str | None:
        """Return ``None``: the pod is not watched."""
        return None

    async def process_gone(self, pid: int) -> bool:
        """Return true: a lost process is recognised by the end of its records instead."""
        return True

    def ended(self, process: ExecProcess) -> None:
        """Do nothing: processes are not tracked here."""
