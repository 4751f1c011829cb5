"""The command line of ``sshgate cp``."""

from __future__ import annotations

import asyncio
import gc
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sshgate.transfer import locations
from sshgate.transfer.locations import LocalPath, Location, PodPath, UsageError

if TYPE_CHECKING:
    from sshgate.transfer.copying import CopyRequest, Transports


@click.command("cp", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("sources", nargs=-1, required=True, type=click.UNPROCESSED, metavar="SOURCE...")
@click.argument("destination", type=click.UNPROCESSED, metavar="DESTINATION")
@click.option("-p", "--port", type=click.IntRange(1, 65_535), help="The gateway's port.")
@click.option("--host", help="The gateway. USER:PATH then needs no host.")
@click.option("-i", "--identity", "identities", multiple=True, metavar="KEY", help="A private key file for ssh.")
@click.option("-o", "--option", "options", multiple=True, metavar="OPTION", help="An option for ssh, as in ssh_config.")
@click.option("-F", "--ssh-config", metavar="FILE", help="ssh's configuration file.")
@click.option(
    "--ssh", "program", default="ssh", show_default=True, metavar="COMMAND", help="The command to run as ssh."
)
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Use the Kubernetes API, with this kubeconfig.",
)
@click.option("--context", help="The context in the kubeconfig.")
@click.option("-n", "--namespace", help="The pod's namespace.")
@click.option("-c", "--container", help="The container, if the pod has several.")
@click.option("--resume", is_flag=True, help="Continue large files where an earlier copy was interrupted.")
@click.option("--max-bytes", metavar="SIZE", help="The most to copy, holes included.  [default: the free space here]")
@click.option("--max-files", type=click.IntRange(min=1), help="The most files to copy.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress bar.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def cp(
    sources: tuple[str, ...],
    destination: str,
    port: int | None,
    host: str | None,
    identities: tuple[str, ...],
    options: tuple[str, ...],
    ssh_config: str | None,
    program: str,
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    container: str | None,
    resume: bool,
    max_bytes: str | None,
    max_files: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Copy files into or out of a running sandbox.

    One side is in a sandbox. Users write USER=NAME:PATH for a named sandbox, or USER@HOST:PATH or HOST:PATH as for
    scp. Operators write pod/NAME:PATH or NAMESPACE/POD:PATH, or with one of the Kubernetes options POD:PATH. Write
    ./NAME for a local file with a colon in its name. A relative PATH starts at the home directory, or
    for POD at the container's working directory.

    \b
      sshgate cp ./project dev=work:/home/dev/ --host node -p 2222
      sshgate cp dev=work@node:results.csv .
      sshgate cp pod/sandbox-x7k2:/home/dev/. ./backup --namespace claudecode-terminal

    A directory is copied with its contents, into the destination if that is a directory; DIR/. copies only the
    contents. Modes, times, links, holes and empty directories are kept; owners are not. Symbolic links are copied
    and not followed. FIFOs, sockets, devices and links of /proc are reported and left out. Files that do not report
    their size (in /proc and /sys) are copied up to 64 MiB. A file that grows during the copy is copied up to the
    size that it had; one that shrinks is an error. A file gets its name only when all of it has arrived and its
    checksum is right.

    The sandbox needs Python 3.8, or tar and sha256sum. --resume, and files in its /proc and /sys, need Python.

    Exit status: 0 if everything was copied, 1 if something was not, 2 for a mistake on the command line.
    """
    gc.set_threshold(100_000)  # frees nothing after imports, and takes 5 % of a small copy's time
    from sshgate.config.model import SandboxPlace
    from sshgate.transfer.copying import CopyRequest, Transports

    operator = any(option is not None for option in (kubeconfig, context, namespace, container))
    try:
        froms = [locations.parse_location(source, host=host, operator=operator) for source in sources]
        to = locations.parse_location(destination, host=host, operator=operator)
        far = locations.route(froms, to)
        limit = locations.size(max_bytes) if max_bytes is not None else 0
        ssh = _command(program)
    except UsageError as error:
        click.echo(f"sshgate: {error}", err=True)
        sys.exit(2)
    arguments = [*_pair("-p", port), *_pair("-F", ssh_config)]
    arguments += [word for key in identities for word in ("-i", key)]
    arguments += [word for option in options for word in ("-o", option)]
    request = CopyRequest(
        far,
        isinstance(froms[0], LocalPath),
        [_path(source) for source in froms],
        _path(to),
        resume,
        limit,
        max_files or 0,
    )
    cluster = SandboxPlace(kubeconfig=kubeconfig, context=context)
    if namespace is not None:
        cluster = SandboxPlace(kubeconfig=kubeconfig, context=context, namespace=namespace)
    sys.exit(run(request, Transports(ssh, arguments, cluster, container), quiet, as_json))


def run(request: CopyRequest, transports: Transports, quiet: bool, as_json: bool) -> int:
    """Run a copy and print its result. Returns the exit status: 128 plus the number of the signal after one."""
    from sshgate.transfer.copying import copy
    from sshgate.transfer.display import Display

    caught: list[int] = []

    async def interruptible() -> str | None:
        task = asyncio.ensure_future(copy(request, transports, display))

        def interrupt(number: int) -> None:
            caught.append(number)
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, interrupt, number)
        try:
            return await task
        except asyncio.CancelledError:
            if not caught:
                raise
            return "interrupted; only files that had arrived whole were kept."

    bar = not quiet and not as_json and sys.stderr is not None and sys.stderr.isatty()
    began = time.monotonic()
    with Display(bar=bar, as_json=as_json) as display, asyncio.Runner(loop_factory=_loop_factory(request)) as runner:
        error = runner.run(interruptible())
    status = display.finish(error, time.monotonic() - began)
    # Keeps imported objects out of the last garbage collection, which takes a tenth of a small copy's time.
    gc.freeze()
    return 128 + caught[0] if caught else status


def _loop_factory(request: CopyRequest) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop if this process itself does TLS, which is 10 % slower on asyncio's loop; not for a copy by ssh."""
    if not isinstance(request.remote, PodPath):
        return None
    try:
        import uvloop
    except ImportError:  # it is a dependency on Linux only
        return None
    return uvloop.new_event_loop


def _command(text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--ssh {text!r} cannot be read as a command: {str(error).lower()}.") from error
    if not words:
        raise UsageError("--ssh is empty: give the command to run.")
    return words


def _pair(option: str, value: object) -> list[str]:
    return [] if value is None else [option, str(value)]


def _path(place: Location) -> bytes:
    if isinstance(place, LocalPath) or place.path:
        return os.fsencode(place.path)
    return b"."
