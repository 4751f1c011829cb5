"""The audit file: who may read it, also after it was moved away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from sshgate.errors import ConfigError
from sshgate.telemetry.audit import AuditFile
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import Events


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_every_file_that_it_makes_is_its_owners_alone(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "audit.jsonl"
    before = os.umask(umask)
    try:
        audit = AuditFile(path)
        events = Events(audit)
        for rotated in ("audit.1", "audit.2"):
            events.emit(Code.STOPPED)
            assert path.stat().st_mode & 0o777 == 0o600
            path.rename(tmp_path / rotated)
        events.emit(Code.STOPPED)
        audit.close()
    finally:
        os.umask(before)
    for name in ("audit.1", "audit.2", "audit.jsonl"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
        (line,) = (tmp_path / name).read_text().splitlines()
        assert json.loads(line)["event"] == "stopped"


# A worker that writes events of all sizes, the longest far beyond a buffer.
_WORKER = """
import sys
from pathlib import Path
from sshgate.telemetry.audit import AuditFile
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import Events

audit = AuditFile(Path(sys.argv[1]))
events = Events(audit)
for number in range(int(sys.argv[3])):
    text = "\N{GRINNING FACE}" * (number % 600)
    events.emit(Code.LOGIN, worker=sys.argv[2], number=number, a=text, b=text, c=text, d=text, e=text)
sys.exit(audit.lost)
"""


def test_two_workers_write_one_file_that_is_rotated_meanwhile(tmp_path: Path) -> None:
    """No line is lost, doubled or torn, and every file is its owner's alone."""
    path, lines = tmp_path / "audit.jsonl", 2500
    argv = [sys.executable, "-c", _WORKER, str(path)]
    writers = [subprocess.Popen([*argv, name, str(lines)]) for name in ("one", "two")]
    rotated = 0
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            assert path.stat().st_mode & 0o777 == 0o600
            path.rename(tmp_path / f"audit.{rotated}")
            rotated += 1
    assert [writer.returncode for writer in writers] == [0, 0]
    assert rotated > 20
    found: Counter[tuple[str, int]] = Counter()
    for file in tmp_path.iterdir():
        assert file.stat().st_mode & 0o777 == 0o600
        text = file.read_bytes()
        assert not text or text.endswith(b"\n")
        events = [json.loads(line) for line in text.splitlines()]
        found.update((one["worker"], one["number"]) for one in events)
    assert found == Counter((name, number) for name in ("one", "two") for number in range(lines))


def test_a_file_that_cannot_be_written_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot write the audit file"):
        AuditFile(tmp_path / "missing" / "audit.jsonl")


def test_an_event_after_the_end_is_written_and_closes_nothing_of_others(tmp_path: Path) -> None:
    audit = AuditFile(tmp_path / "audit.jsonl")
    audit.close()
    with (tmp_path / "other").open("w") as other:  # has the number of the closed file
        Events(audit).emit(Code.STOPPED)
        os.fstat(other.fileno())
    audit.close()
    audit.close()
    assert (tmp_path / "audit.jsonl").read_text().count("\n") == 1
