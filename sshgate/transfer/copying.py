"""One copy from end to end: connects, asks which programs the far end has, and copies by the best of them.

Modules that only the copy itself needs are imported after connecting, while the far end starts, which takes as long.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sshgate.config.model import SandboxPlace
from sshgate.errors import GateError
from sshgate.stream.interfaces import Process
from sshgate.transfer.display import Display
from sshgate.transfer.locations import PodPath, SshPath
from sshgate.transfer.partial_file import Stopped
from sshgate.transfer.records import ProtocolError
from sshgate.transfer.remote_shell import BOOT_ARGV, BOOT_COMMAND, RemoteFailure, RemoteShell
from sshgate.transfer.ssh_program import SshProgram, ssh_argv

if TYPE_CHECKING:
    from sshgate.transfer.destination import WriteOptions


@dataclass(frozen=True, slots=True)
class Transports:
    """How to reach the sandbox.

    ``ssh`` is the program with its first arguments, ``options`` are further ones. ``cluster`` and ``container``
    (``None``: the pod's default) are for copies through the Kubernetes API.
    """

    ssh: Sequence[str] = ("ssh",)
    options: Sequence[str] = ()
    cluster: SandboxPlace = field(default_factory=SandboxPlace)
    container: str | None = None


@dataclass(frozen=True, slots=True)
class CopyRequest:
    """What to copy. ``upload``: from this machine into the sandbox. Paths are bytes, as given.

    ``resume`` continues large files that an earlier copy has left incomplete. ``max_bytes`` and ``max_entries`` limit a
    download; 0: the free space.
    """

    remote: SshPath | PodPath
    upload: bool
    sources: list[bytes]
    destination: bytes
    resume: bool = False
    max_bytes: int = 0
    max_entries: int = 0


async def copy(order: CopyRequest, ways: Transports, display: Display) -> str | None:
    """Run a copy. Entries that cannot be copied are reported to ``display``, and the copy goes on.

    Cancellation closes the connection and removes incomplete files here, except those kept for ``resume``.

    Returns:
        A sentence for the user if the copy failed as a whole, else ``None``.
    """
    try:
        async with _way_in(order.remote, ways) as process:
            await _copy(order, RemoteShell(process, display.say), display)
    except (RemoteFailure, Stopped, GateError) as error:
        return str(error)
    except OSError as error:
        from sshgate.transfer.sender import reason

        return f"{reason(error)}; the copy was stopped and is not complete."
    except ProtocolError as error:
        return f"the far end cannot be trusted: {error}; the copy was stopped and is not complete."
    return None


async def _copy(order: CopyRequest, shell: RemoteShell, display: Display) -> None:
    from sshgate.transfer import python_peer
    from sshgate.transfer.sender import ReadOptions

    agent = python_peer.bundle()
    programs = await shell.programs()
    many = len(order.sources) > 1
    resume = "1" if order.resume else "0"
    if "python3" in programs:
        if order.upload:
            if await python_peer.started(
                shell, agent, "receive", order.destination.hex(), "1" if many else "0", resume
            ):
                await python_peer.send(
                    shell, order.sources, ReadOptions(order.resume, display.wants_totals, wholes=True), display
                )
                return
        else:
            paths = [source.hex() for source in order.sources]
            totals = "1" if display.wants_totals else "0"
            if await python_peer.started(shell, agent, "send", resume, totals, *paths):
                await python_peer.fetch(shell, _writing(order), display)
                return
    if order.resume:
        display.say("--resume needs Python 3.8 in the sandbox, which it lacks: everything is copied from the start.")
    await _without_python(order, shell, display, programs)


async def _without_python(order: CopyRequest, shell: RemoteShell, display: Display, programs: frozenset[str]) -> None:
    from sshgate.transfer import sh_peer, tar_peer

    totals = display.wants_totals
    if programs >= tar_peer.NEEDED:
        if order.upload:
            await tar_peer.send(shell, order.sources, order.destination, display, totals)
        else:
            await tar_peer.fetch(shell, order.sources, _writing(order), display)
    elif order.upload and programs >= sh_peer.NEEDED_TO_SEND:
        await sh_peer.send(shell, order.sources, order.destination, display, totals)
    elif not order.upload and programs >= sh_peer.NEEDED_TO_FETCH:
        await sh_peer.fetch(shell, order.sources, _writing(order), display)
    else:
        needed = sh_peer.NEEDED_TO_SEND if order.upload else sh_peer.NEEDED_TO_FETCH
        raise RemoteFailure(
            "the sandbox has neither Python 3.8 nor a complete tar, and a copy by sh lacks "
            f"{', '.join(sorted(needed - programs))}: install one of them in its image; nothing was copied."
        )


def _writing(order: CopyRequest) -> WriteOptions:
    from sshgate.transfer.destination import WriteOptions

    # Without set-user-id and set-group-id: a program from a sandbox would otherwise run as the user who copied it.
    return WriteOptions(
        order.destination, len(order.sources) > 1, order.resume, 0o1777, order.max_bytes, order.max_entries
    )


@asynccontextmanager
async def _way_in(far: SshPath | PodPath, ways: Transports) -> AsyncIterator[Process]:
    if isinstance(far, PodPath):
        from sshgate.providers.kubernetes.api.library import without_certificates

        with without_certificates():
            from sshgate.transfer.pod_program import pod_program
        cluster = replace(ways.cluster, namespace=far.namespace) if far.namespace else ways.cluster
        async with pod_program(cluster, far.pod, ways.container, BOOT_ARGV) as process:
            yield process
        return
    try:
        program = await SshProgram.start(ssh_argv(ways.ssh, ways.options, far, BOOT_COMMAND))
    except OSError as error:
        raise RemoteFailure(f"{ways.ssh[0]} cannot be started: {error.strerror}; install OpenSSH's client.") from error
    try:
        yield program
    finally:
        await program.close()
