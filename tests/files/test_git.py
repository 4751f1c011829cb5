"""git over exec: both ways, large, and with its newer protocol."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.files.conftest import Worker
from tests.rig.ssh import environment

MEGABYTES = 100


@pytest.mark.timeout(240)
def test_a_large_repository_is_pushed_and_cloned(full: Worker, tmp_path: Path) -> None:
    def git(*words: str, **more: str) -> str:
        names = {f"GIT_{who}_{what}": "dev" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        settings = {"GIT_SSH_COMMAND": full.shell(), "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
        ended = subprocess.run(
            ["git", *words], cwd=tmp_path, capture_output=True, timeout=200, check=False,
            env=environment(**names, **settings, **more),
        )  # fmt: skip
        output = (ended.stdout + ended.stderr).decode(errors="replace")
        assert ended.returncode == 0, "\n".join(line for line in output.splitlines() if "packet:" not in line)[-2000:]
        return output

    far = "ssh://dev@127.0.0.1/tmp/large.git"
    full.run("git init -q --bare --initial-branch=main /tmp/large.git")
    git("init", "-q", "--initial-branch=main", "here")
    (tmp_path / "here/large").write_bytes(os.urandom(MEGABYTES << 20))
    git("-C", "here", "add", "large")
    git("-C", "here", "commit", "-q", "-m", "large")
    git("-C", "here", "push", "-q", far, "main")
    output = git("clone", "-q", far, "back", GIT_TRACE_PACKET="1")
    assert "version 2" in output  # GIT_PROTOCOL has reached the far end
    assert git("-C", "back", "rev-parse", "HEAD") == git("-C", "here", "rev-parse", "HEAD")
    assert (tmp_path / "back/large").read_bytes() == (tmp_path / "here/large").read_bytes()
    full.run("rm -rf /tmp/large.git")
