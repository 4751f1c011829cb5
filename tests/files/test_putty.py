"""PuTTY's tools: what they send before anything is answered is bounded by the channel's window alone."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.files.conftest import Worker, run
from tests.rig.ssh import Ended

SIZE = 40 << 20
# Half of the uploads took more than 40 s, the others 3 to 9.
LIMIT = 25.0


class Putty:
    """pscp and psftp of the user of ``work``."""

    def __init__(self, work: Worker, place: Path) -> None:
        self._ssh = work.ssh
        self._key = place / "id.ppk"
        subprocess.run(["puttygen", work.ssh.key, "-O", "private", "-o", self._key], check=True)
        scanned = run(["ssh-keyscan", "-t", "ed25519", "-p", str(work.ssh.port), "127.0.0.1"]).out
        (place / "host").write_bytes(scanned)
        shown = run(["ssh-keygen", "-lf", str(place / "host")]).out
        found = re.search(rb"SHA256:\S+", shown)
        assert found, shown
        self._host_key = found[0].decode()

    def run(self, program: str, *words: str, stdin: bytes = b"") -> Ended:
        options = ["-batch", "-P", str(self._ssh.port), "-i", str(self._key), "-hostkey", self._host_key]
        return run([program, *options, *words], stdin, seconds=100)


@pytest.fixture
def putty(full: Worker, tmp_path: Path) -> Putty:
    if shutil.which("pscp") is None:
        pytest.skip("no putty-tools on this machine")
    return Putty(full, tmp_path)


def test_an_upload_is_quick_and_whole(putty: Putty, tmp_path: Path) -> None:
    content = os.urandom(1 << 20) * (SIZE >> 20)
    (tmp_path / "large").write_bytes(content)
    batch = f"put {tmp_path}/large large\nget large {tmp_path}/back\nquit\n"
    began = time.monotonic()
    ended = putty.run("psftp", "-be", "-b", "/dev/stdin", "dev@127.0.0.1", stdin=batch.encode())
    taken = time.monotonic() - began
    assert ended.status == 0, ended
    assert hashlib.sha256((tmp_path / "back").read_bytes()).digest() == hashlib.sha256(content).digest()
    assert taken < LIMIT, f"{taken:.1f} s"
