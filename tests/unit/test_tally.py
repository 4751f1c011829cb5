"""The last lines of a test run, over reports that pytest itself has written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = """
import pathlib, pytest

@pytest.fixture
def untidy():
    yield
    assert not ["a pod"], "a pod is left\\nand more"

def test_late():
    assert pathlib.Path("seen").exists(), "it was late"

def test_wrong(untidy):
    raise ValueError("no\\nsecond line")

def test_left(untidy):
    pass

def test_apart():
    pytest.skip("no such machine")

def test_well():
    pass
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reports of a layer that was run, and of what failed in it run again."""
    place = tmp_path_factory.mktemp("layer")
    (place / "test_it.py").write_text(TESTS)
    (place / "reports").mkdir()
    for report, options in (("layer", ()), ("layer.again", ("--last-failed",))):
        argv = [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", str(place)]
        argv += ["-o", "cache_dir=cache", "-W", "ignore", f"--junitxml=reports/{report}.xml", *options, "test_it.py"]
        done = subprocess.run(argv, cwd=place, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1, done.stdout + done.stderr
        (place / "seen").touch()
    return place / "reports"


def tally(results: Path, ci: str = "") -> tuple[int, list[str]]:
    argv = [sys.executable, str(ROOT / "tests" / "tally.py"), str(results), ci]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert not done.stderr
    return done.returncode, done.stdout.splitlines()


def test_each_failure_is_listed_with_its_reason_on_one_line(results: Path) -> None:
    (results / "failed").write_text("layer\n")
    status, lines = tally(results)
    assert status == 1
    assert lines == [
        "passed only when run again: layer: test_it.test_late: AssertionError: it was late",
        "failed: layer: test_it.test_wrong: ValueError: no",
        'failed: layer: test_it.test_left: failed on teardown with "AssertionError: a pod is left',
        "skipped: 1 tests of layer: no such machine",
        "layer failed: layer",
        "2 passed, 2 failed, 1 skipped",
    ]


def test_what_could_not_run_fails_only_a_ci_run(tmp_path: Path) -> None:
    (tmp_path / "unable").write_text("cluster: no room\n")
    (tmp_path / "times").write_text("3 check\n40 waiting for the cluster\n41 in all\n")
    printed = ["could not run: cluster: no room", "seconds: check 3, waiting for the cluster 40, in all 41"]
    assert tally(tmp_path) == (0, [*printed, "0 passed, 0 failed, 0 skipped"])
    status, lines = tally(tmp_path, ci="true")
    assert status == 1
    assert "With CI=true everything has to run." in lines
