"""The command line. What a command needs is imported when it runs, so that ``--help`` is quick."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from sshgate import __version__
from sshgate.errors import ConfigError

FILE = click.Path(dir_okay=False, path_type=Path)
DIRECTORY = click.Path(file_okay=False, path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", prog_name="sshgate")
def main() -> None:
    """ssh into a fresh, locked-down sandbox on your own Kubernetes.

    Try it on this machine with `sshgate try`. For a cluster write a configuration file (sshgate.example.yaml
    shows every option), check it with `sshgate check-config FILE` and run `sshgate serve --config FILE`.

    Exit status: 0 when all went well, 1 when the gateway cannot start, 2 for a mistake in the configuration or
    on the command line.
    """


@main.command()
@click.option(
    "-c", "--config", "file", type=FILE, default=Path("sshgate.yaml"), show_default=True, help="The configuration file."
)
def serve(file: Path) -> None:
    """Run the gateway until TERM or Ctrl-C.

    The first signal stops accepting and gives running sessions `ssh.drain` to end, a second one cuts them.
    Either way no sandbox is left. Logs go to stderr.
    """
    from sshgate import app
    from sshgate.configfile import load

    try:
        config = load(file)
    except ConfigError as error:
        _mistakes(error)
    sys.exit(app.run(config))


@main.command("check-config")
@click.argument("file", type=FILE)
def check_config(file: Path) -> None:
    """Read FILE as `serve` would and name every mistake with its line. Starts nothing."""
    from sshgate.configfile import load

    try:
        config = load(file)
    except ConfigError as error:
        _mistakes(error)
    names = ", ".join(config.profiles)
    click.echo(f"{file}: no mistakes; {config.sandbox.provider} provider on {config.ssh.listen}, profiles: {names}")


@main.command("try")
@click.option("-p", "--port", type=click.IntRange(0, 65_535), default=2222, show_default=True, help="On 127.0.0.1.")
@click.option(
    "--keys", type=DIRECTORY, default=Path("keys"), show_default=True, help="Where keys are kept and made if missing."
)
def try_(port: int, keys: Path) -> None:
    """Run a gateway on this machine alone, with sandboxes by bubblewrap, and print the ssh line to paste.

    Makes host keys, a development key and its authorized_keys file under the keys directory when they are
    missing. Listens on loopback only. Ctrl-C ends it, and every sandbox with it.
    """
    from sshgate import trial

    sys.exit(trial.run(port, keys))


def _mistakes(error: ConfigError) -> None:
    for mistake in error.mistakes:
        click.echo(mistake, err=True)
    sys.exit(error.status)
