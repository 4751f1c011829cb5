"""One copy from end to end: connects, asks which programs the far end has, and copies by the best of them.

Modules that only the copy itself needs are imported after connecting, while the far end starts, which takes as long.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
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

    ``resume`` continues large files that an earlier copy has left incomplete. ``max_bytes`` and ``max_entries`` are
    limits; 0: none but the free space of this machine.
    """

    remote: SshPath | PodPath
    upload: bool
    sources: list[bytes]
    destination: bytes
    resume: bool = False
    max_bytes: int = 0
    max_entries: int = 0


async def copy(request: CopyRequest, transports: Transports, display: Display) -> str | None:
    """Run a copy. Entries that cannot be copied are reported to ``display``, and the copy goes on.

    Cancellation closes the connection and removes incomplete files here, except those kept for ``resume``.

    Returns:
        A sentence for the user if the copy failed as a whole, else ``None``.
    """
    try:
        async with _connected(request.remote, transports) as process:
            await _copy(request, RemoteShell(process, display.say), display)
    except (RemoteFailure, Stopped, GateError) as error:
        return str(error)
    except OSError as error:
        from sshgate.transfer.sender import reason

        return f"{reason(error)}; the copy was stopped and is not complete."
    except ProtocolError as error:
        return f"the far end cannot be trusted: {error}; the copy was stopped and is not complete."
    return None


async def _copy(request: CopyRequest, shell: RemoteShell, display: Display) -> None:
    from sshgate.transfer import python_peer

    agent, writing = python_peer.build_agent(), _write_options(request)
    programs = await shell.wait_for_programs()
    sources, destination, totals = request.sources, request.destination, display.wants_totals
    if "python3" in programs:
        if request.upload:
            arguments = ["receive", destination.hex(), _flag(len(sources) > 1), _flag(request.resume)]
        else:
            arguments = ["send", _flag(request.resume), _flag(totals), *(source.hex() for source in sources)]
        if await python_peer.start_agent(shell, agent, *arguments):
            if request.upload:
                await python_peer.send(shell, sources, writing, totals, display)
            else:
                await python_peer.fetch(shell, writing, display)
            return
    from sshgate.transfer import tar_peer

    if missing := sorted(tar_peer.NEEDED - programs):
        lacks = "neither Python 3.8 nor tar: add one of them"
        if "tar" in programs:
            lacks = f"no Python 3.8, and a copy by tar needs {', '.join(missing)} as well: add these or Python"
        raise RemoteFailure(f"the sandbox has {lacks} to its image; nothing was copied.")
    if request.resume:
        display.say("--resume needs Python 3.8 in the sandbox, which it lacks: everything is copied from the start.")
    if request.upload:
        await tar_peer.send(shell, sources, writing, display, totals)
    else:
        await tar_peer.fetch(shell, sources, writing, display)


def _flag(value: bool) -> str:
    return "1" if value else "0"


def _write_options(request: CopyRequest) -> WriteOptions:
    from sshgate.transfer.destination import WriteOptions
    from sshgate.transfer.sender import destination_name

    # What name the home directory has is known there alone.
    names = frozenset(map(destination_name, request.sources))
    # Without set-user-id and set-group-id: a program from a sandbox would otherwise run as the user who copied it.
    return WriteOptions(
        request.destination, len(request.sources) > 1, request.resume, 0o1777, request.max_bytes, request.max_entries,
        None if b"~" in names else names,
    )  # fmt: skip


@contextmanager
def _no_certificates() -> Iterator[None]:
    """aiohttp reads the system's certificates twice when it is imported, a tenth of a small copy; none uses them."""
    variables = ("SSL_CERT_FILE", "SSL_CERT_DIR")
    before = {name: os.environ[name] for name in variables if name in os.environ}
    os.environ.update(dict.fromkeys(variables, os.devnull))
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]
        os.environ.update(before)


@asynccontextmanager
async def _connected(far: SshPath | PodPath, transports: Transports) -> AsyncIterator[Process]:
    if isinstance(far, PodPath):
        with _no_certificates():
            from sshgate.transfer.pod_program import pod_program

        cluster = replace(transports.cluster, namespace=far.namespace) if far.namespace else transports.cluster
        async with pod_program(cluster, far.pod, transports.container, BOOT_ARGV) as process:
            yield process
        return
    try:
        program = await SshProgram.start(ssh_argv(transports.ssh, transports.options, far, BOOT_COMMAND))
    except OSError as error:
        ssh = transports.ssh[0]
        raise RemoteFailure(f"{ssh} cannot be started: {error.strerror}; install OpenSSH's client.") from error
    try:
        yield program
    finally:
        await program.close()
