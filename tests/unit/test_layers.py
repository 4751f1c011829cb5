"""scripts/test itself, with programs that only play pytest and the cluster."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rig.waiting import until

ROOT = Path(__file__).resolve().parents[2]
NOTHING = "#!/bin/sh\nexit 0\n"
# Fails where it is named in FAILS, with the status there; waits for TERM if WAITS is set.
PYTEST = """#!/usr/bin/env bash
name=${1##*/}
name=${name%.xml}
echo "$name" >>ran
for one in ${FAILS:-}; do [ "$name" != "${one%=*}" ] || exit "${one#*=}"; done
[ -n "${WAITS:-}" ] || exit 0
trap 'sleep 0.3; echo "$name" >>tidied; exit 2' TERM
echo "$name" >>waits
for ((turn = 0; turn < 600; turn++)); do sleep 0.1; done
"""
BESIDE = ["deploy", "deploy-others", "web"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A project of scripts/test and what it calls."""
    programs = {
        "scripts/setup": NOTHING,
        "tests/cluster/cluster": NOTHING,
        "sandbox-image/build": NOTHING,
        "sandbox-image/load": NOTHING,
        "manifests/image/build": NOTHING,
        ".venv/bin/pytest": PYTEST,
        ".venv/bin/python": f'#!/bin/sh\nexec "{sys.executable}" "$@"\n',
    }
    for name in ("scripts/test", "tests/tally.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for name, text in programs.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def layers(place: Path, **environment: str) -> subprocess.Popen[str]:
    argv, chosen = [str(place / "scripts/test"), "deploy", "web"], {**os.environ, "CI": "", **environment}
    null, pipe = subprocess.DEVNULL, subprocess.PIPE
    return subprocess.Popen(argv, env=chosen, stdin=null, stdout=pipe, stderr=null, text=True, start_new_session=True)


def names(file: Path) -> list[str]:
    return sorted(file.read_text().split()) if file.exists() else []


def test_all_is_well(place: Path) -> None:
    with layers(place) as run:
        out, _ = run.communicate(timeout=60)
    assert run.returncode == 0, out
    assert names(place / "ran") == BESIDE


@pytest.mark.parametrize("part", BESIDE)
def test_what_fails_twice_beside_others_fails_the_run(place: Path, part: str) -> None:
    """And what passes when it is run again does not."""
    with layers(place, FAILS=f"{part}=1 {part}.again=1") as run:
        out, _ = run.communicate(timeout=60)
    assert run.returncode == 1
    assert f"layer failed: {part.removesuffix('-others')}" in out.splitlines()
    (place / "ran").unlink()
    with layers(place, FAILS=f"{part}=1") as run:
        out, _ = run.communicate(timeout=60)
    assert run.returncode == 0, out
    assert names(place / "ran") == sorted([*BESIDE, f"{part}.again"])


def test_what_came_to_no_end_is_not_made_up_for_by_what_failed_before(place: Path) -> None:
    """pytest's status is 1 where tests have failed, and another one where some did not run."""
    with layers(place, FAILS="web=2") as run:
        out, _ = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "layer failed: web" in out.splitlines()
    assert names(place / "ran") == BESIDE


def test_term_ends_all_that_runs_and_waits_for_it(place: Path) -> None:
    with layers(place, WAITS="yes") as run:
        until(lambda: names(place / "waits") == BESIDE, 30, "all that run beside each other")
        run.send_signal(signal.SIGTERM)
        run.communicate(timeout=30)
    assert run.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM)
    assert names(place / "tidied") == BESIDE
    assert names(place / "ran") == BESIDE
