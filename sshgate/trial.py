"""``sshgate try``: a gateway on loopback with everything it needs, and the line to paste."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from sshgate import app
from sshgate.access.authorized_keys import Keyring
from sshgate.config import Access, Address, Config, Limits, Log, Profile, SandboxPlace, Ssh

USER = "dev"
KEY = "dev_ed25519"


def run(port: int, keys: Path) -> int:
    """Make what is missing under ``keys``, serve, and return the exit status."""
    try:
        make_keys(keys)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.stderr.decode(errors="replace").strip()
        print(f"sshgate: no keys can be made in {keys}: {reason}.", file=sys.stderr)
        return 1
    config = configuration(port, keys)
    return app.run(config, lambda addresses: announce(addresses[0], keys))


def configuration(port: int, keys: Path) -> Config:
    """All defaults, but on this machine: loopback, the local provider, and more sandboxes at a time."""
    return Config(
        ssh=Ssh(listen=Address("127.0.0.1", port), host_keys=keys / "host", drain=0.0),
        access=Access(authorized_keys=keys / "users"),
        sandbox=SandboxPlace(provider="local"),
        profiles={"default": Profile(), "shared": Profile(name="shared", scope="connection")},
        limits=Limits(sandboxes_per_user=50),
        log=Log(level="warning"),
    )


def make_keys(keys: Path) -> None:
    """A development key, and a user who may come in with it. What is there already stays as it is."""
    users = keys / "users"
    for directory in (keys, users):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = keys / KEY
    if not key.exists():
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "sshgate try", "-f", str(key)]
        subprocess.run(words, check=True, capture_output=True)
    if not (users / USER).exists():
        descriptor = os.open(users / USER, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(key.with_suffix(".pub").read_text())


def announce(address: Address, keys: Path) -> None:
    """Write the host keys where the printed lines look for them, and print these."""
    # Anew at every start, for the keys that are there now: a stale line would look like an attack.
    place = f"[{address.host}]:{address.port}"
    lines = [f"{place} {public.read_text().strip()}\n" for public in sorted((keys / "host").glob("*.pub"))]
    (keys / "known_hosts").write_text("".join(lines))
    options = f"-i {keys / KEY} -o IdentitiesOnly=yes -o UserKnownHostsFile={keys / 'known_hosts'}"
    ssh = f"ssh -p {address.port} {options}"
    guest = f"{USER}@{address.host}"
    print(f"sshgate is listening on {address}. In another terminal, from {Path.cwd()}:\n")
    print(f"  {ssh} {guest}\n")
    print("Every login gets a fresh sandbox. More to try:\n")
    print(f"  {ssh} {guest} 'uname -a; id'")
    print(f"  sftp -P {address.port} {options} {guest}")
    print(f"  {ssh} {USER}+shared@{address.host}     # one sandbox for all of a connection")
    print("\nCtrl-C ends it, and every sandbox with it.", flush=True)
    if Keyring(keys / "users", None).empty:
        print(f"No usable key is in {keys / 'users'}: nobody can log in.", file=sys.stderr)
