"""The commands of ``sshgate``. They import what they need when they run, which keeps help and checks fast."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sshgate import __version__
from sshgate.transfer.command import cp

if TYPE_CHECKING:
    from sshgate.config.model import Config

SHORTEST_PASSWORD = 10
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", prog_name="sshgate", message="%(prog)s %(version)s")
def main() -> None:
    """Let people `ssh` into a fresh, locked-down sandbox.

    Every login gets a Kubernetes pod of its own, or on a laptop a bubblewrap sandbox, and the sandbox is gone
    when the user leaves. Begin with `sshgate try`; then copy sshgate.example.yaml, change what you need, and
    run `sshgate serve`.
    """


main.add_command(cp)


@main.command()
@click.option("-c", "--config", "file", type=_FILE, default="sshgate.yaml", show_default=True, help="The settings.")
def serve(file: Path) -> None:
    """Run the gateway with the settings of a file.

    It runs in the foreground, logs to stderr, and keeps its keys in the directories that the file names. TERM
    and Ctrl-C stop it: no more logins, running sessions may end within ssh.drain, then every sandbox is
    removed. A second signal does not wait. A changed file is read again by itself, and at HUP; the log says what
    is in force and what waits for a restart.

    Exit status: 0 after a signal, 1 when it cannot start, 2 when the settings are wrong.
    """
    config = _load(file)
    from sshgate.server import app

    sys.exit(app.run(config, file=file))


@main.command("try")
@click.option("-p", "--port", type=click.IntRange(0, 65_535), default=2222, show_default=True, help="0: a free one.")
@click.option(
    "--keys",
    type=click.Path(path_type=Path, file_okay=False),
    default="keys",
    show_default=True,
    help="Where host keys, the development key and the users' keys are kept.",
)
def try_(port: int, keys: Path) -> None:
    """Run a gateway for yourself, here and now, without a cluster and without settings.

    Sandboxes are made on this machine by bubblewrap, and only this machine can log in. A key for the user
    `dev` is made at the first start. The line to paste is printed as soon as logins are accepted.
    """
    from sshgate.cli import try_ as trial
    from sshgate.errors import GateError

    try:
        status = trial.run(port, keys)
    except GateError as error:
        click.echo(f"sshgate: {error}", err=True)
        status = error.status if error.status != 255 else 1
    except KeyboardInterrupt:  # before the gateway has installed its signal handlers
        status = 130
    sys.exit(status)


@main.command("check-config")
@click.argument("file", type=_FILE)
def check_config(file: Path) -> None:
    """Say whether a file of settings can be used, and all that is wrong with it.

    Mistakes go to stderr, one on each line as FILE:LINE: what is wrong and what to do. Host keys, addresses, the
    audit file and what traces need are tried as `serve` would on this machine. Nothing is started or made and no
    cluster is asked.

    Exit status: 0 when the gateway can start with it, 2 when not.
    """
    config = _load(file)
    from sshgate.cli import preflight

    if refused := preflight.refusals(config):
        for sentence in refused:
            click.echo(f"{file}: {sentence}", err=True)
        sys.exit(2)
    from sshgate.access.authorized_keys import Keyring

    if Keyring(config.access.authorized_keys, config.access.user_ca).empty:
        click.echo(f"{file}: no key is configured yet: nobody can log in. {_first_key(config)}", err=True)
    from sshgate.config.ignored import ignored_settings

    for sentence in ignored_settings(config):
        click.echo(f"{file}: {sentence}.", err=True)
    profiles = ", ".join(config.profiles)
    listening = f"{config.ssh.listen}" + (f" and {config.web.listen}" if config.web is not None else "")
    click.echo(f"{file}: fine. {config.sandbox.provider} sandboxes, listening on {listening}, profiles: {profiles}")


@main.command()
@click.argument("user")
@click.option("-c", "--config", "file", type=_FILE, default="sshgate.yaml", show_default=True, help="The settings.")
@click.option("--remove", is_flag=True, help="Take the password away; the user's sessions by it end.")
def passwd(user: str, file: Path, remove: bool) -> None:
    """Set a user's password for the browser, in the file that web.users_file names.

    It is asked for twice on a terminal, else read as one line from stdin. A running gateway sees the change at
    once; logins by an earlier password end.

    Exit status: 0 when it is written, 1 when it cannot be written, 2 when the settings or the name are wrong.
    """
    from sshgate.config.names import is_user

    web = _load(file).web
    if web is None or web.users_file is None:
        click.echo(f"{file}: there is no web.users_file to write to: name a file there.", err=True)
        sys.exit(2)
    if not is_user(user):
        click.echo(f"sshgate: {user!r} cannot name a user: use A-Z, a-z, 0-9 and '._@-', not '.@-' first.", err=True)
        sys.exit(2)
    # Imported by name: the package can be installed without the web front end.
    passwords = importlib.import_module("webshim.passwords")
    password = None if remove else _password()
    try:
        passwords.set_password(web.users_file, user, password)
    except OSError as error:
        click.echo(f"sshgate: {web.users_file}: {error.strerror}.", err=True)
        sys.exit(1)
    click.echo(f"{web.users_file}: {user} {'has no password any more' if remove else 'has a new password'}.")


_CONFIG = click.option(
    "-c", "--config", "file", type=_FILE, default="sshgate.yaml", show_default=True, help="The settings."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Values for programs instead of text.")


@main.group()
def sandboxes() -> None:
    """List the sandboxes of all users, or end one. Needs the cluster, not a running gateway."""


@sandboxes.command("list")
@_CONFIG
@_JSON
def list_sandboxes(file: Path, as_json: bool) -> None:
    """List every sandbox that is somebody's, with what it uses where the cluster measures it.

    Exit status: 0, 1 when the cluster does not answer, 2 when the settings are wrong.
    """
    config = _load(file)
    from sshgate.cli import admin as operate

    sys.exit(operate.list_sandboxes(config, as_json))


@sandboxes.command("end")
@click.argument("which")
@_CONFIG
@_JSON
def end_sandbox(which: str, file: Path, as_json: bool) -> None:
    """End a sandbox, by its pod's name or as USER=NAME, with all that runs in it. A home is kept.

    Exit status: 0 when it ends, 1 when there is none or the cluster does not answer, 2 when the settings are wrong.
    """
    config = _load(file)
    from sshgate.cli import admin as operate

    sys.exit(operate.end_sandbox(config, which, as_json))


@main.command()
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@_CONFIG
@_JSON
def reap(dry_run: bool, file: Path, as_json: bool) -> None:
    """Remove what dead gateways left behind, and named sandboxes nobody came back to.

    Running gateways do this by themselves; this is for when none runs. Who is dead is told by silence, so it takes
    about 25 seconds.

    Exit status: 0, 1 when the cluster does not answer, 2 when the settings are wrong.
    """
    config = _load(file)
    from sshgate.cli import admin as operate

    sys.exit(operate.reap(config, dry_run, as_json))


def _password() -> str:
    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\n")
    if len(password) < SHORTEST_PASSWORD:
        click.echo(f"sshgate: a password needs at least {SHORTEST_PASSWORD} characters.", err=True)
        sys.exit(2)
    return str(password)


def _load(file: Path) -> Config:
    from sshgate.config.load import load
    from sshgate.errors import ConfigError

    try:
        return load(file)
    except ConfigError as error:
        for mistake in error.mistakes:
            click.echo(mistake, err=True)
        sys.exit(2)


def _first_key(config: Config) -> str:
    return f"Put somebody's .pub file there under the user's name: {config.access.authorized_keys / 'NAME'}"
