"""A resident of the tests' own, for the tests of what keeps held sessions."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.rig.resident import Attached, attaching, running


@pytest.fixture
def resident(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with running(tmp_path) as process:
        yield process


@pytest.fixture
def attach(resident: subprocess.Popen[bytes], tmp_path: Path) -> Iterator[Callable[[], Attached]]:
    with attaching(resident, tmp_path) as one:
        yield one
