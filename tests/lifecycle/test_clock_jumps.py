"""A gateway whose machine's clock is set while it serves, forwards and backwards: nothing ends, no time is wrong."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import pytest

from sshgate.lifecycle import schema as labels
from tests.lifecycle.place import Place, names, note, staying
from tests.rig.waiting import until

pytestmark = pytest.mark.cluster

DAY = 86_400.0
# Read by the gateway's interpreter before anything of ours: the clock of the machine is nobody's to set for a test.
SHIFTED = """
import pathlib, time
place, machine = pathlib.Path({place!r}), time.time
def shifted():
    shift = float((place / "shift").read_text())
    (place / f"asked {{shift:g}}").touch()
    return machine() + shift
time.time = shifted
"""


class Clock:
    """The wall clock of gateways that start from now on."""

    def __init__(self, place: Path, patch: pytest.MonkeyPatch) -> None:
        self.place = place
        place.mkdir()
        self.set(0.0)
        (place / "sitecustomize.py").write_text(SHIFTED.format(place=str(place)))
        patch.setenv("PYTHONPATH", str(place))

    def set(self, shift: float) -> None:
        """Seconds by which it is wrong from now on."""
        (self.place / "new").write_text(f"{shift}")
        (self.place / "new").replace(self.place / "shift")

    def asked(self, shift: float) -> bool:
        """Whether a gateway has looked at it since."""
        return (self.place / f"asked {shift:g}").exists()


def test_a_clock_that_is_set_ends_nothing_and_no_time_is_written_by_it(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(tmp_path / "clock", monkeypatch)
    gateway = place.gateway(profile={"warm": 1, "limits": {"detached": "10m", "max_lifetime": "1h"}})
    work = place.user(gateway, "dev=work")
    assert work.run("touch /tmp/mark").status == 0
    place.filled(1)
    with staying(place.user(gateway)) as clients:
        place.filled(1)
        before = names(place.pods())
        for shift in (DAY, -DAY):
            clock.set(shift)
            until(partial(clock.asked, shift), 20, "the gateway having looked at its clock")
            # Leases are renewed every 5 s, and what is over is looked for every 2 s.
            until(partial(_renewed_since, place, _renewals(place)), 30, "its lease being renewed")
            assert names(place.pods()) == before
            assert work.run("ls /tmp/mark").status == 0, "the same sandbox as before"
        assert clients[0].poll() is None
        taken = names(place.pods(labels.CLAIMED))
        with staying(place.user(gateway)):
            (newest,) = [pod for pod in place.pods(labels.CLAIMED) if pod["metadata"]["name"] not in taken]
            claimed, expires = (labels.parse_timestamp(note(newest, key)) or 0.0 for key in TIMES)
            assert abs(claimed - time.time()) < 600, "the API server's time, not the machine's"
            assert 3599 < expires - claimed < 3601
    assert work.run("end", options=("-s",)).status == 0


TIMES = (labels.CLAIMED_AT, labels.EXPIRES_AT)


def _renewals(place: Place) -> set[str]:
    """When Leases were renewed last, as they say."""
    return {lease["spec"]["renewTime"] for lease in place.space.leases() if "renewTime" in lease["spec"]}


def _renewed_since(place: Place, before: set[str]) -> bool:
    return bool(_renewals(place) - before)
