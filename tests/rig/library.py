"""What OpenSSH's client cannot be made to send: requests by an SSH library."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncssh

from tests.rig.ssh import Ssh

LIMIT = 30.0


@asynccontextmanager
async def connection(ssh: Ssh, user: str | None = None) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """A connection of the same user with the same key."""
    async with asyncssh.connect(
        "127.0.0.1",
        ssh.port,
        config=None,
        known_hosts=None,
        username=ssh.user if user is None else user,
        client_keys=[str(ssh.key)],
        agent_path=None,
        gss_host=None,
    ) as made:
        yield made


def run_command(ssh: Ssh, command: str) -> tuple[int, bytes]:
    """Exit status and errors of one exec request, whatever its command is."""

    async def run() -> tuple[int, bytes]:
        async with asyncio.timeout(LIMIT), connection(ssh) as made:
            session = _Collect()
            channel, _ = await made.create_session(lambda: session, command=_Sent(command), encoding=None)
            await channel.wait_closed()
            status = channel.get_exit_status()
            return (-1 if status is None else status), bytes(session.errors)

    return asyncio.run(run())


def login_answer(ssh: Ssh, user: str) -> str:
    """What a login under this name meets: ``in``, or the library's words for the refusal."""

    async def log_in() -> str:
        async with asyncio.timeout(LIMIT):
            try:
                async with connection(ssh, user):
                    return "in"
            except asyncssh.Error as error:
                return f"{type(error).__name__}: {error}"

    return asyncio.run(log_in())


class _Sent(str):
    """A command that is sent even when it is empty: the library takes the empty text for no command."""

    def __bool__(self) -> bool:
        return True


class _Collect(asyncssh.SSHClientSession[bytes]):
    def __init__(self) -> None:
        self.errors = bytearray()

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        if datatype:
            self.errors += data
