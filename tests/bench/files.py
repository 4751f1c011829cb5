"""Rows of files: sftp, `sshgate cp` and rsync, through connections that are open already."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import count
from pathlib import Path

from tests.bench.measure import Row, Samples, in_turn, ratio, seconds
from tests.bench.scene import BASE_POD, Scene
from tests.rig.ssh import Ssh, environment
from tests.rig.waiting import until

SIZE = 256 << 20
FILES = 10_000
_CP = (sys.executable, "-m", "sshgate", "cp")
# Trees go to memory: ext4 makes files several times slower where many went a while ago.
_TREES, _BULK = "/dev/shm", "/tmp"
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
    """256 MiB into a pod by `sshgate cp` with its name, against `kubectl cp`: both go by the Kubernetes API."""
    ours, base = _by_pod_name("256 MiB", _bulk(scene), _BULK, scene, runs)
    return ratio("cp-file", "copies/s", ours, base, most=None, least=1.0)


def cp_tree(scene: Scene, runs: int) -> Row:
    """10,000 small files, otherwise the same."""
    ours, base = _by_pod_name("10,000 files", _tree(scene), _TREES, scene, runs)
    return ratio("cp-tree", "copies/s", ours, base, most=None, least=1.5)


def cp_file_ssh(scene: Scene, runs: int) -> Row:
    """256 MiB by ssh and the gateway, which `kubectl cp` does without: measured, not judged."""
    return _by_ssh("cp-file-ssh", "256 MiB", _bulk(scene), _BULK, scene, runs)


def cp_tree_ssh(scene: Scene, runs: int) -> Row:
    """10,000 small files, otherwise the same."""
    return _by_ssh("cp-tree-ssh", "10,000 files", _tree(scene), _TREES, scene, runs)


def rsync_tree(scene: Scene, runs: int) -> Row:
    """10,000 small files into a sandbox by rsync, against rsync to sshd on this machine; both write to memory.

    On a disk it is the disk that is measured: ext4 makes files several times slower where many went a while ago.
    """
    tree = _tree(scene)
    with _shared(scene) as ours_open, scene.sshd() as local, _opened(local) as base_open:
        ours, base = Samples("rsync to the sandbox, 10,000 files"), Samples("rsync to sshd here")

        def to(user: Ssh, options: tuple[str, ...]) -> float:
            place = f"/dev/shm/rsync-{next(_numbers)}"
            shell = " ".join(["ssh", *options, *user.options(), "-p", str(user.port)])
            target = f"{user.user}@127.0.0.1:{place}/"
            try:
                return FILES / _time(["rsync", "-a", "-e", shell, f"{tree}/", target])
            finally:
                user.run(f"rm -rf {place}", options=options)

        in_turn(runs, (ours, lambda: to(*ours_open)), (base, lambda: to(*base_open)))
    return ratio("rsync-tree", "files/s", ours, base, most=None, least=0.8)


def _by_pod_name(what: str, source: Path, to: str, scene: Scene, runs: int) -> tuple[Samples, Samples]:
    ours, base = Samples(f"sshgate cp by pod name, {what}"), Samples(f"kubectl cp, {what}")
    place = scene.namespace
    by_us = [*_CP, "--kubeconfig", str(place.kubeconfig), "--namespace", place.name, str(source)]
    in_turn(
        runs,
        (ours, lambda: _copies(to, lambda there: [*by_us, f"pod/{BASE_POD}:{there}"], scene.kubectl_exec())),
        (base, lambda: _kubectl_copies(to, source, scene)),
    )
    return ours, base


def _by_ssh(name: str, what: str, source: Path, to: str, scene: Scene, runs: int) -> Row:
    ours, base = Samples(f"sshgate cp by ssh, {what}"), Samples(f"kubectl cp, {what}")
    with _shared(scene) as (ssh, control):
        # Only ssh's options: the port is one of `sshgate cp` itself.
        by_us = [*_CP, *control, "-F", "none", *ssh.options()[2:], "-p", str(ssh.port), str(source)]
        by_ssh = ssh.argv(options=control)[:-1]
        in_turn(
            runs,
            (ours, lambda: _copies(to, lambda there: [*by_us, f"dev@127.0.0.1:{there}"], by_ssh)),
            (base, lambda: _kubectl_copies(to, source, scene)),
        )
    return Row(name, "copies/s", ours, base, ours.median / base.median, "no target", met=True)


def _kubectl_copies(to: str, source: Path, scene: Scene) -> float:
    kubectl = scene.kubectl_exec()
    copy = [*kubectl[: kubectl.index("exec")], "cp", str(source)]
    return _copies(to, lambda there: [*copy, f"{BASE_POD}:{there}"], kubectl)


def _copies(to: str, command: Callable[[str], list[str]], shell: Sequence[str | bytes]) -> float:
    """Copies in a second; what was copied is removed afterwards."""
    there = f"{to}/copy-{next(_numbers)}"
    try:
        return 1 / _time(command(there))
    finally:
        subprocess.run([*shell, "rm", "-rf", there], check=True, env=environment())


def _shared(scene: Scene) -> AbstractContextManager[tuple[Ssh, tuple[str, ...]]]:
    """A user whose connection is open, with its sandbox, and ssh's options to use it."""
    return _opened(scene.gateway("kubernetes", scope="connection")[1])


@contextmanager
def _opened(ssh: Ssh) -> Iterator[tuple[Ssh, tuple[str, ...]]]:
    """The user, with a connection that stays open meanwhile, and ssh's options to use that."""
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
        with source.open("rb") if source is not None else nullcontext(subprocess.PIPE) as file:
            process = subprocess.Popen(argv, stdin=file, stdout=subprocess.DEVNULL, env=environment())
        # A wait of subprocess with a time limit looks every 50 ms.
        limit = threading.Timer(170, process.kill)
        limit.start()
        try:
            process.communicate(stdin if source is None else None)
        finally:
            limit.cancel()
            process.kill()  # if this run is ended early; otherwise it has ended
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, argv)

    return seconds(work)


def _rate(argv: list[str | bytes], stdin: bytes = b"", source: Path | None = None) -> float:
    return (SIZE >> 20) / _time(argv, stdin, source)


ROWS = {
    "sftp-get": sftp_get,
    "sftp-put": sftp_put,
    "cp-file": cp_file,
    "cp-tree": cp_tree,
    "cp-file-ssh": cp_file_ssh,
    "cp-tree-ssh": cp_tree_ssh,
    "rsync-tree": rsync_tree,
}
