"""``sshgate try``: a gateway for one person on one machine. Creates the keys and the configuration that it needs."""

from __future__ import annotations

import base64
import errno
import os
import re
import shlex
import socket
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sshgate.access.identity import Identity, LoginName
from sshgate.access.key_line import fingerprint_of
from sshgate.broker.keys import VARIABLES, brought_key
from sshgate.config.model import Access, Address, Config, Limits, Log, Model, Profile, Provider, SandboxPlace, Ssh, Web
from sshgate.errors import ConfigError, Unavailable
from sshgate.server import app
from sshgate.server.frontends import Frontends
from sshgate.session.subsystems.sandboxes import ALIAS, ssh_config_block
from sshgate.ssh import hostkeys

USER = "dev"
HOST = "127.0.0.1"
WEB_PORT = 31_000
# Longer than for other login links, as the user first reads the instructions.
LINK_SECONDS = 600.0


def run(port: int, keys: Path) -> int:
    """Serve on loopback until Ctrl-C, and print instructions for logging in.

    Args:
        port: The SSH port; 0 picks a free one.
        keys: The directory of host keys, the development key and users' keys. Created if it does not exist.

    Returns:
        The exit status.

    Raises:
        GateError: The port is taken, or ``keys`` cannot be used.
    """
    _check_port(port)
    offered, about_models = offer_models(prepare(port, keys))
    config = replace(offered, web=Web(listen=_web_address(port), secret=keys / "web"))

    def on_ready(frontends: Frontends) -> None:
        assert frontends.web is not None
        public = base64.b64decode(_development_key(_private_key(keys)).split()[1])
        identity = Identity(LoginName(USER), "publickey", fingerprint_of(public), HOST)
        link = frontends.web.login_link(identity, LINK_SECONDS)
        print(instructions(frontends.addresses[0].port, keys, link, about_models), flush=True)

    return app.run(config, on_ready)


def prepare(port: int, keys: Path) -> Config:
    """Create the keys that are missing under ``keys``, and return a configuration that uses them.

    Existing keys are kept.

    Raises:
        ConfigError: ``keys`` cannot be written, or holds a key that cannot be used.
    """
    users = keys / "users"
    try:
        for directory in (keys, users):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        public = _development_key(_private_key(keys))
        _authorize(users / USER, public)
        known = "".join(_known_host(pair.public_data) for pair in hostkeys.load(keys / "host"))
        (keys / "known_hosts").write_text(known)
    except OSError as error:
        raise ConfigError(
            [f"{error.filename or keys}: {error.strerror}; choose another directory with --keys."]
        ) from error
    return Config(
        # There are no other users whose sessions a drain would wait for.
        ssh=Ssh(listen=Address(HOST, port), host_keys=keys / "host", drain=0.0),
        access=Access(authorized_keys=users),
        sandbox=SandboxPlace(provider="local"),
        profiles={"default": Profile(), "fresh": Profile(name="fresh", scope="channel")},
        limits=Limits(sandboxes_per_user=50),
        log=Log(level="warning"),
    )


def offer_models(config: Config) -> tuple[Config, str]:
    """Offer sandboxes the models whose keys are in this process's environment, which its children do not inherit.

    The broker adds a key outside to what a sandbox asks. It is kept in memory only, in a file without a name. Returns
    what the instructions say of it as well; empty where there is nothing to say.
    """
    models: dict[Provider, Model] = {}
    variables, sentences = [], []
    for variable, provider in VARIABLES.items():
        text = os.environ.pop(variable, "")
        try:
            key = brought_key(text.encode("utf-8", "replace"))
        except ValueError as error:
            sentences.append(f"{variable}: {error}\n")
            continue
        if key is not None and provider not in models:
            file = os.memfd_create(provider)
            os.write(file, key.encode())
            models[provider] = Model(keys=Path(f"/proc/self/fd/{file}"))
            variables.append(variable)
    profiles = {name: replace(profile, models=tuple(models)) for name, profile in config.profiles.items()}
    offered: dict[str, Any] = {str(provider): model for provider, model in models.items()}
    config = replace(config, models=replace(config.models, **offered), profiles=profiles)
    if models:
        claude = ", and `claude` starts without a question" if "anthropic" in models else ""
        sentences.append(
            f"{', '.join(variables)}: agents in a sandbox reach {', '.join(models)} through\n"
            f"http://{HOST}:{config.broker.port} of their own. No sandbox has the key{claude}.\n"
        )
    return config, "".join(f"\n{sentence}" for sentence in sentences)


def instructions(port: int, keys: Path, link: str, more: str = "") -> str:
    """Return the instructions that are printed at the start. Their commands work in a shell in this directory."""
    key, known = _ssh_word(_private_key(keys)), _ssh_word(keys / "known_hosts")
    identity = ["-i", key] if key == str(_private_key(keys)) else ["-o", f"IdentityFile={key}"]
    # Without IdentitiesOnly, ssh first tries all keys of the agent and may exceed the allowed attempts.
    options = [*identity, "-o", "IdentitiesOnly=yes", "-o", f"UserKnownHostsFile={known}"]
    ssh = shlex.join(["ssh", "-p", str(port), *options, f"{USER}@{HOST}"])
    sftp = shlex.join(["sftp", "-P", str(port), *options, f"{USER}@{HOST}"])
    key, known = (_ssh_word(path.resolve()) for path in (_private_key(keys), keys / "known_hosts"))
    files = (f"IdentityFile {key}", "IdentitiesOnly yes", f"UserKnownHostsFile {known}")
    return f"""
Ready. Every login gets a fresh sandbox on this machine. Paste this into another terminal, in this directory:

  {ssh}

Or open this link in a browser. It works once, within {LINK_SECONDS // 60:.0f} minutes; the command prints another:

  {link}
  {shlex.join(["ssh", "-p", str(port), *options, "-s", f"{USER}@{HOST}", "web"])}

One command, with its input, output and exit status:

  {ssh} 'uname -a; exit 7'

Files:

  {sftp}

All channels of a connection share one sandbox; log in as {USER}+fresh to give each its own. To use the same sandbox
from every connection, as remote editors do, log in as {USER}=NAME. With these lines in ~/.ssh/config, the host
`{ALIAS}` is such a sandbox:

{textwrap.indent(ssh_config_block(LoginName(USER), HOST, port, *files).rstrip(), "  ")}
{more}
Ctrl-C here stops the gateway and removes every sandbox.
"""


def _check_port(port: int) -> None:
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        reason = "is taken by another program" if taken else f"cannot be used: {os.strerror(error.errno or 0)}"
        other = port + 1 if 1024 <= port < 65_535 else 2222
        raise Unavailable(f"port {port} of {HOST} {reason}; try another one: sshgate try --port {other}") from error


def _web_address(port: int) -> Address:
    """Return the web address: the usual port, or a free one if that is taken or SSH uses a free port as well."""
    try:
        socket.create_server((HOST, WEB_PORT)).close()
    except OSError:
        return Address(HOST, 0)
    return Address(HOST, WEB_PORT if port else 0)


def _private_key(keys: Path) -> Path:
    return keys / "dev_ed25519"


def _development_key(path: Path) -> str:
    """Return the public key as an authorized_keys line. Creates the key pair if it does not exist."""
    try:
        private = serialization.load_ssh_private_key(path.read_bytes(), None)
    except FileNotFoundError:
        private = Ed25519PrivateKey.generate()
        _create(path, private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        ))  # fmt: skip
    except (ValueError, TypeError) as error:
        raise ConfigError([f"{path}: not a private key, or one with a passphrase; move it away."]) from error
    public = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return f"{public.decode()} sshgate-try\n"


def _create(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)


def _authorize(path: Path, line: str) -> None:
    """Add a line to the user's authorized_keys file, unless the file already has its key."""
    present = path.read_text("utf-8", "replace") if path.exists() else ""
    if line.split()[1] in present.split():
        return
    if not path.exists():
        _create(path, line.encode())
        return
    with path.open("a") as file:
        file.write(("" if present.endswith("\n") or not present else "\n") + line)


def _known_host(blob: bytes) -> str:
    kind = blob[4 : 4 + int.from_bytes(blob[:4], "big")].decode()
    # For any port, so that gateways on different ports can share the file.
    return f"[{HOST}]:* {kind} {base64.b64encode(blob).decode()}\n"


def _ssh_word(path: Path) -> str:
    """Quote a path for ssh's ``-o``: ssh splits and unquotes the value itself, and expands % and a leading ~."""
    text = str(path)
    if re.fullmatch(r"[\w./@+,=:-]+", text):
        return text
    escaped = re.sub(r'(["\\])', r"\\\1", text.replace("%", "%%"))
    return f'"{"./" if text.startswith("~") else ""}{escaped}"'
