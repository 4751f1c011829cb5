"""OpenSSH's client with files of its own, free of this machine's configuration."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.rig.waiting import until

PATIENCE = 60.0
# Nobody ever types at this.
_SILENT, _ = os.pipe()


@dataclass(frozen=True)
class Ended:
    """What a client printed and how it ended."""

    status: int
    out: bytes
    err: bytes

    @property
    def both(self) -> str:
        return (self.out + self.err).decode("utf-8", "replace")


@dataclass(frozen=True)
class Ssh:
    """A user at a client: ``place`` holds the key ``id`` and the known hosts."""

    place: Path
    port: int
    user: str = "dev"
    host: str = "127.0.0.1"

    @property
    def key(self) -> Path:
        return self.place / "id"

    def as_user(self, user: str) -> Ssh:
        """The same client and key under another login name."""
        return Ssh(self.place, self.port, user, self.host)

    def end_named(self) -> None:
        """End all named sandboxes of this user."""
        for line in self.run("sandboxes", options=("-s",)).out.decode().splitlines()[1:]:
            if (name := line.split()[0]) != "-":
                assert self.as_user(f"{self.user}={name}").run("end", options=("-s",)).status == 0

    def options(self) -> list[str]:
        """What every OpenSSH program is given here, as ``-o`` words."""
        settings = (
            "IdentitiesOnly=yes", "IdentityAgent=none", "BatchMode=yes", "StrictHostKeyChecking=accept-new",
            f"UserKnownHostsFile={self.place}/known_hosts", f"IdentityFile={self.key}", "HostKeyAlias=gateway",
            "LogLevel=ERROR", "ControlPath=none", "UpdateHostKeys=no",
        )  # fmt: skip
        return ["-F", "none", *(word for setting in settings for word in ("-o", setting))]

    def argv(self, *command: str | bytes, options: tuple[str, ...] = ()) -> list[str | bytes]:
        """The command line; the first value of an option counts, so ``options`` win."""
        return ["ssh", *options, *self.options(), "-p", str(self.port), "-l", self.user, self.host, "--", *command]

    def start(self, *command: str | bytes, options: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        """A client with pipes; its caller ends it."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            self.argv(*command, options=options), stdin=pipe, stdout=pipe, stderr=pipe, env=environment()
        )

    @contextmanager
    def running(self, command: str = "echo up; exec sleep 600") -> Iterator[subprocess.Popen[bytes]]:
        """A client whose program has printed its first line, ``up``. It is killed with the block."""
        client = self.start(command)
        try:
            assert client.stdout is not None
            assert client.stdout.readline() == b"up\n"
            yield client
        finally:
            client.kill()
            client.communicate()

    def run(
        self,
        *command: str | bytes,
        options: tuple[str, ...] = (),
        stdin: bytes | None = b"",
        limit: float = PATIENCE,
        environ: dict[str, str] | None = None,
    ) -> Ended:
        """A client from start to end. With ``None`` its input does not end. Raises ``TimeoutExpired``."""
        source: dict[str, Any] = {"stdin": _SILENT} if stdin is None else {"input": stdin}
        done = subprocess.run(
            self.argv(*command, options=options),
            **source,
            capture_output=True,
            timeout=limit,
            check=False,
            env={**environment(), **(environ or {})},
        )
        return Ended(done.returncode, done.stdout, done.stderr)


def end(client: subprocess.Popen[bytes], limit: float = 20.0) -> None:
    """End a client that waits. Raises ``AssertionError``.

    TERM again and again: a signal that comes just before OpenSSH's client begins to wait is only noticed at its next
    input.
    """

    def ended() -> bool:
        client.terminate()
        try:
            client.wait(0.5)
        except subprocess.TimeoutExpired:
            return False
        return True

    until(ended, limit, "the client's end")


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without what would change a client's mind."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("SSH_", "LC_", "LANG", "TMUX"))}
    return {**kept, **changes}


def make_key(path: Path, *more: str) -> str:
    """A new key pair; the text of its public half."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path, *more], check=True)
    return Path(f"{path}.pub").read_text().strip()
