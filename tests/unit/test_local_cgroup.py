"""Which control groups of earlier gateways are removed."""

from __future__ import annotations

import os
from pathlib import Path

from sshgate.providers.local import cgroup
from sshgate.providers.local.cgroup import Hierarchy


def test_only_groups_of_dead_gateways_of_this_pid_namespace_are_swept(tmp_path: Path) -> None:
    place = Hierarchy(tmp_path, "memory.max", "memory.swap.max", False)
    mine = tmp_path / cgroup.group_name("local-a")
    assert mine.name.startswith(f"{cgroup.PREFIX}{os.getpid()}-"), "operators find a gateway's groups by its process id"
    dead = tmp_path / mine.name.replace(str(os.getpid()), str(2**22 + 1), 1)
    elsewhere = tmp_path / f"{cgroup.PREFIX}{2**22 + 1}-1-local-a"
    for group in (mine, dead, elsewhere):
        group.mkdir()
    cgroup.sweep(place)
    assert sorted(tmp_path.iterdir()) == sorted([mine, elsewhere])
