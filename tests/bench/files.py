"""Rows of files: sftp, `sshgate cp` and rsync, through connections that are open already."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from tests.bench.measure import Row, Samples, in_turn, ratio, seconds
from tests.bench.scene import BASE_POD, Scene
from tests.rig.ssh import Ssh, environment
from tests.rig.waiting import until

SIZE = 256 << 20
FILES = 10_000
_numbers = count()


def sftp_get(scene: Scene, runs: int) -> Row:
    """256 MiB by sftp's get, against `cat` through ssh."""
    with _shared(scene) as (ssh, control):
        ssh.run(f"head -c {SIZE} /dev/urandom > /tmp/bulk", options=control)
        ours, base = Samples("sftp get, 256 MiB"), Samples("ssh ... 'cat bulk'")
        get = [*_sftp(ssh, control)]
        in_turn(
            runs,
            (ours, lambda: _rate(get, b"get /tmp/bulk /dev/null\n")),
            (base, lambda: _rate(ssh.argv("cat /tmp/bulk", options=control))),
        )
    return ratio("sftp-get", "MiB/s", ours, base, most=None, least=0.8)


def sftp_put(scene: Scene, runs: int) -> Row:
    """256 MiB by sftp's put, against `cat >` through ssh."""
    bulk = _bulk(scene)
    with _shared(scene) as (ssh, control):
        ours, base = Samples("sftp put, 256 MiB"), Samples("ssh ... 'cat > bulk'")
        put, cat = _sftp(ssh, control), ssh.argv("cat > /tmp/bulk", options=control)
        in_turn(
            runs,
            (ours, lambda: _rate(put, f"put {bulk} /tmp/bulk\n".encode())),
            (base, lambda: _rate(cat, source=bulk)),
        )
    return ratio("sftp-put", "MiB/s", ours, base, most=None, least=0.8)


def cp_file(scene: Scene, runs: int) -> Row:
    """256 MiB into a sandbox by `sshgate cp`, against `kubectl cp`."""
    return _copy("cp-file", "256 MiB", _bulk(scene), scene, runs, 1.0)


def cp_tree(scene: Scene, runs: int) -> Row:
    """10,000 small files into a sandbox by `sshgate cp`, against `kubectl cp`."""
    return _copy("cp-tree", "10,000 files", _tree(scene), scene, runs, 1.5)


def rsync_tree(scene: Scene, runs: int) -> Row:
    """10,000 small files into a sandbox by rsync, against rsync to sshd on this machine."""
    tree = _tree(scene)
    with _shared(scene) as (ssh, control), scene.sshd() as local:
        ours, base = Samples("rsync to the sandbox, 10,000 files"), Samples("rsync to sshd here")

        def to(user: Ssh, options: tuple[str, ...], place: Path) -> float:
            shell = " ".join(["ssh", *options, *user.options(), "-p", str(user.port)])
            target = f"{user.user}@127.0.0.1:{place}/{next(_numbers)}/"
            return FILES / _time(["rsync", "-a", "-e", shell, f"{tree}/", target])

        there = scene.place / "rsynced"
        there.mkdir()
        in_turn(runs, (ours, lambda: to(ssh, control, Path("/tmp"))), (base, lambda: to(local, (), there)))
        shutil.rmtree(there)
    return ratio("rsync-tree", "files/s", ours, base, most=None, least=0.8)


def _copy(name: str, what: str, source: Path, scene: Scene, runs: int, least: float) -> Row:
    ours, base = Samples(f"sshgate cp, {what}"), Samples(f"kubectl cp, {what}")
    kubectl = scene.kubectl_exec()
    kubectl = [*kubectl[: kubectl.index("exec")], "cp"]
    with _shared(scene) as (ssh, control):
        # Only ssh's options: the port is one of `sshgate cp` itself.
        options = [*control, "-F", "none", *ssh.options()[2:], "-p", str(ssh.port)]

        def by_us() -> float:
            target = f"dev@127.0.0.1:/tmp/{next(_numbers)}"
            return 1 / _time([sys.executable, "-m", "sshgate", "cp", *options, str(source), target])

        def by_kubectl() -> float:
            return 1 / _time([*kubectl, str(source), f"{BASE_POD}:/tmp/{next(_numbers)}"])

        in_turn(runs, (ours, by_us), (base, by_kubectl))
    return ratio(name, "copies/s", ours, base, most=None, least=least)


@contextmanager
def _shared(scene: Scene) -> Iterator[tuple[Ssh, tuple[str, ...]]]:
    """A user whose connection is open, with its sandbox, and ssh's options to use it."""
    _, ssh = scene.gateway("kubernetes", scope="connection")
    socket = ssh.place / f"c{next(_numbers)}"
    control = ("-o", f"ControlPath={socket}")
    with subprocess.Popen(ssh.argv(options=("-M", "-N", *control))[:-1], env=environment()) as master:
        try:
            until(socket.exists, 20, "the shared connection")
            ssh.run("true", options=control)
            yield ssh, control
        finally:
            master.terminate()


def _bulk(scene: Scene) -> Path:
    path = scene.place / "bulk-random"
    if not path.exists():
        with path.open("wb") as file:
            for _ in range(SIZE >> 20):
                file.write(os.urandom(1 << 20))
    return path


def _tree(scene: Scene) -> Path:
    path = scene.place / "tree"
    if not path.exists():
        for number in range(FILES):
            place = path / f"{number // 100:03d}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"file-{number}").write_bytes(os.urandom(300))
    return path


def _sftp(ssh: Ssh, control: tuple[str, ...]) -> list[str | bytes]:
    return ["sftp", *control, *ssh.options(), "-q", "-P", str(ssh.port), "-b", "-", "dev@127.0.0.1"]


def _time(argv: list[str] | list[str | bytes], stdin: bytes = b"", source: Path | None = None) -> float:
    def work() -> None:
        if source is None:
            subprocess.run(argv, input=stdin, stdout=subprocess.DEVNULL, env=environment(), check=True, timeout=170)
            return
        with source.open("rb") as file:
            subprocess.run(argv, stdin=file, stdout=subprocess.DEVNULL, env=environment(), check=True, timeout=170)

    return seconds(work)


def _rate(argv: list[str | bytes], stdin: bytes = b"", source: Path | None = None) -> float:
    return (SIZE >> 20) / _time(argv, stdin, source)


ROWS = {
    "sftp-get": sftp_get,
    "sftp-put": sftp_put,
    "cp-file": cp_file,
    "cp-tree": cp_tree,
    "rsync-tree": rsync_tree,
}
