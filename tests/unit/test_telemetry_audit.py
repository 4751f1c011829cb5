"""The audit file: who may read it, also after it was moved away."""

from __future__ import annotations

import json
import os
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


def test_a_file_that_cannot_be_written_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot write the audit file"):
        AuditFile(tmp_path / "missing" / "audit.jsonl")
