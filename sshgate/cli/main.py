"""The commands of ``sshgate``. They import what they need when they run, which keeps help and checks fast."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from sshgate import __version__
from sshgate.errors import ConfigError
from sshgate.transfer.command import cp

if TYPE_CHECKING:
    from sshgate.config.model import Config

SHORTEST_PASSWORD = 10
_FILE = click.Path(path_type=Path, dir_okay=False)
_CONFIG = click.option(
    "-c", "--config", "file", type=_FILE, default="sshgate.yaml", show_default=True, help="The settings file."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


class _Commands(click.Group):
    """Prints what is wrong with the settings, or with what is installed, and exits with 2."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            for mistake in error.mistakes:
                click.echo(mistake, err=True)
            ctx.exit(error.status)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", prog_name="sshgate", message="%(prog)s %(version)s")
def main() -> None:
    """Give every ssh login a fresh, locked-down sandbox.

    The sandbox is a Kubernetes pod, or made with bubblewrap on this machine. It is deleted when the user leaves.
    Begin with `sshgate try`. To run a gateway for others, copy sshgate.example.yaml, edit it, and run
    `sshgate serve`.
    """


main.add_command(cp)


@main.command()
@_CONFIG
@click.option(
    "--workers", type=click.IntRange(1), help="Processes that share the ports, instead of the setting workers."
)
def serve(file: Path, workers: int | None) -> None:
    """Run the gateway.

    It runs in the foreground and logs to stderr. SIGTERM or Ctrl-C stops it: it accepts no more logins, gives
    running sessions the time of ssh.drain to end, and deletes its sandboxes. A second signal ends the wait.

    The settings file is read again when it changes, and at SIGHUP. The log says which changes are in force and
    which need a restart.

    With several workers, one that dies is started again.

    Exit status: 0 after a signal, 1 if the gateway cannot start, 2 if the settings are not valid.
    """
    config, given = _load(file), {}
    if workers is not None:
        config, given = replace(config, workers=workers), {"workers": workers}
    from sshgate.config.rules import workers_error

    if clause := workers_error(config):
        _fail(f"sshgate: {clause}.", 2)
    from sshgate.server import app

    sys.exit(app.run(config, file=file, given=given))


@main.command()
@_CONFIG
@click.option("--listen", help="The address to listen on, if gateways reach it by another one.")
def broker(file: Path, listen: str | None) -> None:
    """Run the broker in a process of its own.

    Gateways reach it at broker.listen. It alone has the keys of models. It reads the gateways' settings file, of
    which it uses models, broker, profiles, limits.groups, telemetry and log. SIGTERM or Ctrl-C stops it as it does a
    gateway.

    Exit status: 0 after a signal, 1 if it cannot start, 2 if the settings are not valid.
    """
    config = _load(file, of_broker=True)
    if listen is not None:
        from sshgate.config.values import address

        try:
            config = replace(config, broker=replace(config.broker, listen=address(listen)))
        except ValueError as error:
            _fail(f"sshgate: --listen: {error}.", 2)
    from sshgate.server import broker as process

    sys.exit(process.run(config, file))


@main.command("try")
@click.option(
    "-p", "--port", type=click.IntRange(0, 65_535), default=2222, show_default=True, help="0 picks a free port."
)
@click.option(
    "--keys",
    type=click.Path(path_type=Path, file_okay=False),
    default="keys",
    show_default=True,
    help="The directory for host keys, the development key and users' keys.",
)
def try_gateway(port: int, keys: Path) -> None:
    """Run a gateway on this machine, without a cluster.

    It needs no settings file. Sandboxes are made with bubblewrap, and logins are accepted from this machine only. The
    first start makes a key for the user `dev`. When the gateway is ready, it prints the ssh command to paste.

    Exit status: 0 after a signal, another one if the gateway cannot start.
    """
    from sshgate.cli import try_
    from sshgate.errors import GateError

    try:
        status = try_.run(port, keys)
    except GateError as error:
        click.echo(f"sshgate: {error}", err=True)
        status = error.status if error.status != 255 else 1
    except KeyboardInterrupt:  # before the gateway has installed its signal handlers
        status = 130
    sys.exit(status)


@main.command("check-config")
@click.argument("file", type=_FILE)
def check_config(file: Path) -> None:
    """Check a settings file, and report every mistake in it.

    Each mistake is one line on stderr: FILE:LINE: what is wrong and what to do. Host keys, addresses, the web's
    certificate and secret, prices, the audit file and the export of traces are checked as `serve` would use them on
    this machine. Nothing is started or created, and the cluster is not contacted.

    Exit status: 0 if the gateway can start with the file, 2 if not.
    """
    config = _load(file)
    from sshgate.cli import preflight

    if refused := preflight.refusals(config):
        for sentence in refused:
            click.echo(f"{file}: {sentence}", err=True)
        sys.exit(2)
    from sshgate.access.authorized_keys import Keyring

    if Keyring(config.access.authorized_keys, config.access.user_ca).empty:
        keys = config.access.authorized_keys / "USER"
        click.echo(f"{file}: nobody can log in yet: copy a user's .pub file to {keys}, USER being the login.", err=True)
    from sshgate.config.rules import ignored_settings

    for sentence in ignored_settings(config):
        click.echo(f"{file}: {sentence}.", err=True)
    profiles = ", ".join(config.profiles)
    listening = f"{config.ssh.listen}" + (f" and {config.web.listen}" if config.web is not None else "")
    click.echo(f"{file}: fine. {config.sandbox.provider} sandboxes, listening on {listening}, profiles: {profiles}")


@main.command()
@click.argument("user")
@_CONFIG
@click.option("--remove", is_flag=True, help="Remove the password; logins made with it end.")
def passwd(user: str, file: Path, remove: bool) -> None:
    """Set a user's password for the browser.

    It is kept in the file named by the setting web.users_file. On a terminal it is asked for twice; otherwise it is
    read from stdin as one line. A running gateway applies the change at once, and logins made with the old password
    end.

    Exit status: 0 if the password was set or removed, 1 if there is none to remove or the file cannot be written, 2
    if the settings, the name or the password are not valid.
    """
    from sshgate.config.values import is_user

    web = _load(file).web
    if web is None or web.users_file is None:
        _fail(f"{file}: web.users_file is not set: name a file there, in which passwords are kept.", 2)
    if not is_user(user):
        _fail(
            f"sshgate: {user!r} is not a user name: use A-Z, a-z, 0-9, '_' and, except at the start, '.', '@', '-'.", 2
        )
    # Imported by name: the package can be installed without the web front end.
    passwords = importlib.import_module("webshim.passwords")
    password = None if remove else _password(passwords.LONGEST_PASSWORD)
    try:
        changed = passwords.set_password(web.users_file, user, password)
    except OSError as error:
        _fail(f"sshgate: {web.users_file}: {error.strerror}.", 1)
    except UnicodeDecodeError:
        _fail(f"sshgate: {web.users_file}: this is not UTF-8 text.", 1)
    if not changed:
        _fail(f"sshgate: {web.users_file}: there is no user {user!r} with a password.", 1)
    click.echo(f"{web.users_file}: {'removed the password' if remove else 'set a new password'} of {user}.")


@main.group()
def sandboxes() -> None:
    """List the sandboxes of all users, or end one. Needs the cluster, but no running gateway."""


@sandboxes.command("list")
@_CONFIG
@_JSON
def list_sandboxes(file: Path, as_json: bool) -> None:
    """List the sandboxes in use.

    CPU and memory are shown if the cluster measures them.

    Exit status: 0, 1 if the cluster does not answer, 2 if the settings are not valid.
    """
    config = _load(file)
    from sshgate.cli import admin

    sys.exit(admin.list_sandboxes(config, as_json))


@sandboxes.command("end")
@click.argument("which")
@_CONFIG
@_JSON
def end_sandbox(which: str, file: Path, as_json: bool) -> None:
    """End a sandbox and everything that runs in it. WHICH is a pod's name or USER=NAME. Its home is kept.

    Exit status: 0 if it has ended, 1 if there is no such sandbox or the cluster does not answer, 2 if the settings
    are not valid.
    """
    config = _load(file)
    from sshgate.cli import admin

    sys.exit(admin.end_sandbox(config, which, as_json))


@main.command()
@click.option("--dry-run", is_flag=True, help="Print what would be deleted, and delete nothing.")
@_CONFIG
@_JSON
def reap(dry_run: bool, file: Path, as_json: bool) -> None:
    """Delete what dead gateways have left behind.

    Named sandboxes that have expired are deleted as well. Running gateways do this by themselves; use it when none
    runs. It first waits about 25 seconds for signs of life from gateways.

    Exit status: 0, 1 if the cluster does not answer, 2 if the settings are not valid.
    """
    config = _load(file)
    from sshgate.cli import admin

    sys.exit(admin.reap(config, dry_run, as_json))


def _password(longest: int) -> str:
    """Ask for a password. ``longest``: of a longer one, a login would look at the beginning only."""
    if sys.stdin.isatty():
        password = str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    else:
        password = sys.stdin.buffer.readline().decode("utf-8", "surrogateescape").rstrip("\n")
    if not SHORTEST_PASSWORD <= len(password) <= longest:
        _fail(f"sshgate: a password has {SHORTEST_PASSWORD} to {longest} characters.", 2)
    if any("\ud800" <= character <= "\udfff" for character in password):
        _fail("sshgate: a password is UTF-8 text: a browser sends nothing else.", 2)
    return password


def _load(file: Path, of_broker: bool = False) -> Config:
    from sshgate.config.load import load

    return load(file, of_broker)


def _fail(sentence: str, status: int) -> NoReturn:
    click.echo(sentence, err=True)
    sys.exit(status)
