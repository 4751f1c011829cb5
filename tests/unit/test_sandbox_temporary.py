"""Temporary directories outlive no gateway for long."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest

from sshgate.sandbox.temporary import make_directory


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def _make_and_die() -> None:
    made, _ = make_directory("sshgate-x-")
    (made / "key").write_text("secret")
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_gateway_leaves_is_removed_by_the_next(place: Path) -> None:
    killed = multiprocessing.get_context("fork").Process(target=_make_and_die)
    killed.start()
    killed.join()
    assert [len(list(left.iterdir())) for left in place.iterdir()] == [1]
    made, lock = make_directory("sshgate-x-")
    assert list(place.iterdir()) == [made]
    os.close(lock)


def test_those_of_running_gateways_and_other_prefixes_stay(place: Path) -> None:
    first, lock = make_directory("sshgate-x-")
    (place / "sshgate-y-1-a").mkdir()
    second, other = make_directory("sshgate-x-")
    assert {path.name for path in place.iterdir()} == {first.name, second.name, "sshgate-y-1-a"}
    for one, held in ((first, lock), (second, other)):
        assert one.stat().st_mode & 0o777 == 0o700
        shutil.rmtree(one)
        os.close(held)
