"""Sandboxes on this machine, by bubblewrap: the provider for a laptop without a cluster."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from sshgate.config import Profile, SandboxPlace
from sshgate.errors import StartFailed, Unavailable
from sshgate.sandbox.local.bubblewrap import Machine, order
from sshgate.sandbox.local.sandbox import LocalSandbox
from sshgate.sandbox.local.system import examine, fill_etc, outside_account, refuse_public, root_links
from sshgate.sandbox.provider import Notice, Order

__all__ = ["LocalProvider", "refuse_public"]

SPAWNER = Path(__file__).with_name("spawner.py")
# How long the kernel may take to end all sandboxes when the gateway stops.
CLOSE_SECONDS = 5.0


class LocalProvider:
    """See ``sshgate.sandbox.provider.Provider``."""

    def __init__(self, place: SandboxPlace) -> None:
        self._place = place
        self._sandboxes: set[LocalSandbox] = set()
        self._spawner: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._machine: Machine | None = None
        self._links: dict[str, str] = {}
        self._started = 0

    def __repr__(self) -> str:
        state = "open" if self._control is not None else "closed"
        return f"<LocalProvider {state}: {len(self._sandboxes)} sandboxes>"

    async def open(self) -> None:
        # Sandboxes of an earlier life died with it; there is nothing to remove.
        etc = Path(tempfile.mkdtemp(prefix="sshgate-etc-"))
        try:
            self._machine = await asyncio.to_thread(examine, etc)
            await asyncio.to_thread(fill_etc, etc)
            self._links = root_links()
            self._spawn(etc)
        except BaseException:
            shutil.rmtree(etc, ignore_errors=True)
            raise
        try:
            await self._try_out()
        except BaseException:
            await self.close()
            raise

    async def create(self, order: Order, notice: Notice) -> LocalSandbox:
        self._started += 1
        return self._make(order.profile, f"local-{order.session}-{self._started}")

    async def close(self) -> None:
        for sandbox in list(self._sandboxes):
            await sandbox.delete()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                for sandbox in list(self._sandboxes):
                    await sandbox.gone.wait()
        except TimeoutError:
            pass  # whatever is stuck in the kernel ends when the kernel lets go of it
        spawner, self._spawner = self._spawner, None
        control, self._control = self._control, None
        if control is not None:
            control.close()
        if spawner is not None:
            await asyncio.to_thread(spawner.wait)

    def _spawn(self, etc: Path) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._spawner = subprocess.Popen(
                [sys.executable, "-I", "-S", str(SPAWNER), str(etc)],
                stdin=theirs.fileno(),
                env={},
                cwd="/",
                start_new_session=True,
            )
        self._control.setblocking(False)

    async def _try_out(self) -> None:
        """Make one sandbox and start a program in it, so that what is wrong shows now."""
        sandbox = self._make(Profile(), "local-trial")
        try:
            process = await sandbox.start(("/bin/true",), None)
            await process.close()
        except StartFailed as error:
            raise Unavailable(str(error)) from error
        finally:
            await sandbox.delete()

    def _make(self, profile: Profile, name: str) -> LocalSandbox:
        if self._control is None or self._machine is None:
            raise Unavailable("the local provider is closed.")
        wanted = order(self._machine, profile, name, self._links)
        wanted["outside"] = outside_account(profile.binds)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        text = os.memfd_create("order")
        try:
            with open(text, "wb", closefd=False) as file:
                file.write(json.dumps(wanted).encode())
            socket.send_fds(self._control, [b"{}"], [theirs.fileno(), text])
        except OSError as error:
            ours.close()
            raise Unavailable("the process that makes local sandboxes has gone; start the gateway again.") from error
        finally:
            theirs.close()
            os.close(text)
        sandbox = LocalSandbox(name, ours, profile.limits.start, self._sandboxes.discard)
        self._sandboxes.add(sandbox)
        return sandbox
