"""OpenSSH's own server on loopback: what an ordinary machine is to its users."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.rig.gateway import free_port
from tests.rig.ssh import Ssh, make_key
from tests.rig.waiting import until


@contextmanager
def sshd(place: Path) -> Iterator[Ssh]:
    """A server with its files in the empty directory ``place``, and a user at it: root, or the user who runs this."""
    place.chmod(0o700)
    (place / "authorized_keys").write_text(make_key(place / "id") + "\n")
    make_key(place / "host")
    port = free_port()
    (place / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {place}/host\nAuthorizedKeysFile {place}/authorized_keys\n"
        f"PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nMaxStartups 100\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    program = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ["PATH"]) or "sshd"
    with (place / "log").open("ab") as log:
        server = subprocess.Popen([program, "-D", "-e", "-f", place / "sshd_config"], stdout=log, stderr=log)
    user = Ssh(place, port, os.environ.get("USER") or "root")
    try:
        until(lambda: user.run("true").status == 0, 20, "sshd answering")
        yield user
    finally:
        server.terminate()
        server.wait()
