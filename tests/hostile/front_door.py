"""A front door on loopback for tests: an ``SshServer`` with keys of its own, and real clients that come to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sshgate.access.authorized_keys import Keyring
from sshgate.access.limits import Admission
from sshgate.config.model import Access, Address, Config, Limits, Ssh
from sshgate.ssh.server import SshServer
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import Events, Record, to_log
from tests.hostile.backend import Programs
from tests.rig import keys

LIMIT = 20.0


@dataclass
class Result:
    """What a client said."""

    status: int
    out: bytes
    err: bytes


@dataclass
class FrontDoor:
    """A running server, and the directory where its keys and its clients' files are."""

    place: Path
    config: Config
    server: SshServer
    admission: Admission
    programs: Programs
    port: int = 0
    clients: list[asyncio.subprocess.Process] = field(default_factory=list)
    events: list[Record] = field(default_factory=list)

    def heard(self, code: Code) -> list[object]:
        """The reasons of the events of this kind so far."""
        return [record.fields.get("reason") for record in self.events if record.code is code]

    @property
    def key(self) -> Path:
        """The private key that ``user`` may log in with."""
        return self.place / "id"

    def ssh_argv(self, *words: str | bytes, user: str = "user", options: Sequence[str] = ()) -> list[str | bytes]:
        """The command line of OpenSSH's client, free of this machine's configuration."""
        fixed = [
            "-F", "none", "-p", str(self.port), "-i", str(self.key), "-o", "IdentitiesOnly=yes",
            "-o", "IdentityAgent=none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=accept-new",
            "-o", f"UserKnownHostsFile={self.place}/known_hosts", "-o", "LogLevel=ERROR", "-l", user,
        ]  # fmt: skip
        return ["ssh", *options, *fixed, "127.0.0.1", *words]

    async def start(
        self, *words: str | bytes, user: str = "user", options: Sequence[str] = (), argv: Sequence[str | bytes] = ()
    ) -> asyncio.subprocess.Process:
        """A client with pipes. It is killed when the door closes."""
        pipe = asyncio.subprocess.PIPE
        client = await asyncio.create_subprocess_exec(
            *(argv or self.ssh_argv(*words, user=user, options=options)),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            env={**os.environ, "SSH_AUTH_SOCK": ""},
        )
        self.clients.append(client)
        return client

    async def ssh(
        self,
        *words: str | bytes,
        user: str = "user",
        options: Sequence[str] = (),
        stdin: bytes = b"",
        limit: float = LIMIT,
        argv: Sequence[str | bytes] = (),
    ) -> Result:
        """Run a client to its end."""
        client = await self.start(*words, user=user, options=options, argv=argv)
        async with asyncio.timeout(limit):
            out, err = await client.communicate(stdin)
        return Result(client.returncode if client.returncode is not None else -1, out, err)


def make_key(path: Path, kind: str = "ed25519", *more: str) -> str:
    """A new key pair; the text of its public half."""
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", path, *more], check=True)
    return Path(f"{path}.pub").read_text().strip()


def make_config(
    place: Path, ssh: Ssh | None = None, access: Access | None = None, limits: Limits | None = None
) -> Config:
    """A configuration whose files are all in ``place``."""
    return Config(
        ssh=replace(ssh or Ssh(), listen=Address("127.0.0.1", 0), host_keys=place / "host"),
        access=replace(access or Access(), authorized_keys=place / "users"),
        limits=limits or Limits(),
    )


@contextlib.asynccontextmanager
async def front_door(
    place: Path, ssh: Ssh | None = None, access: Access | None = None, limits: Limits | None = None
) -> AsyncIterator[FrontDoor]:
    """A server that lets ``user`` in with the key ``place/id``."""
    (place / "users").mkdir(exist_ok=True)
    if not (place / "host").exists():
        keys.of_host(place / "host")
    if not (place / "id").exists():
        (place / "users" / "user").write_text(make_key(place / "id") + "\n")
    config = make_config(place, ssh, access, limits)
    admission, programs = Admission(config.limits), Programs()
    keyring = Keyring(config.access.authorized_keys, config.access.user_ca)
    events: list[Record] = []
    server = SshServer(config, keyring, admission.ssh, programs, Events(to_log, events.append))
    door = FrontDoor(place, config, server, admission, programs, events=events)
    try:
        door.port = (await server.listen())[0].port
        yield door
    finally:
        for client in door.clients:
            if client.returncode is None:
                client.kill()
                await client.communicate()
        await server.close()
