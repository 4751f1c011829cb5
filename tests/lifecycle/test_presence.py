"""Who is alive and who is dead: a gateway that is stopped or busy, one that is killed, one that comes back."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import ExitStack

import msgspec
import pytest

from sshgate.lifecycle import schema as labels
from sshgate.lifecycle.membership import LEASE_DURATION
from sshgate.providers.kubernetes.liveness import LivenessEndpoint, ProbeResult, probe
from sshgate.telemetry.codes import Code
from tests.lifecycle.place import Place, staying
from tests.rig.frozen import frozen
from tests.rig.gateway import Gateway, nothing_left
from tests.rig.waiting import until

pytestmark = pytest.mark.cluster

# Longer than silence, and than it takes to delete what is left by the dead.
HELD = LEASE_DURATION + 10.0


def doors(place: Place) -> dict[str, LivenessEndpoint]:
    """Where each life answers, by the name of its Lease."""
    metas = [lease["metadata"] for lease in place.space.leases()]
    notes = {meta["name"]: meta.get("annotations", {}) for meta in metas}
    return {
        name: msgspec.json.decode(note[labels.ENDPOINT], type=LivenessEndpoint) for name, note in notes.items() if note
    }


def started(place: Place, name: str) -> tuple[Gateway, LivenessEndpoint]:
    before = doors(place)
    gateway = place.gateway(name)
    (door,) = [door for instance, door in doors(place).items() if instance not in before]
    return gateway, door


def test_a_gateway_that_is_stopped_or_busy_keeps_its_sandboxes_and_a_killed_one_does_not(place: Place) -> None:
    looking = place.gateway("looking")
    stopped, busy, killed = (started(place, name) for name in ("stopped", "busy", "killed"))
    kept = [place.user(gateway) for gateway in (looking, stopped[0], busy[0])]
    with staying(*kept) as clients, staying(place.user(killed[0])):
        assert len(place.pods()) == 4
        with ExitStack() as held:
            os.kill(stopped[0].pid, signal.SIGSTOP)
            held.callback(os.kill, stopped[0].pid, signal.SIGCONT)
            held.enter_context(frozen(busy[0].pid))
            assert probe(busy[1]) is ProbeResult.ALIVE, "held with the interpreter's lock; run it again"
            assert probe(stopped[1]) is ProbeResult.UNKNOWN
            began = time.monotonic()
            nothing_left(killed[0].kill())
            until(lambda: len(place.pods()) == 3, HELD, "the removal of the killed one's sandbox")
            time.sleep(max(0.0, began + HELD - time.monotonic()))
            assert len(place.pods()) == 3
        for ssh in kept:
            assert ssh.run("echo in").out == b"in\n"
        assert [client.poll() for client in clients] == [None] * 3
        assert looking.log().count("sandbox.reaped") == 1


def test_two_gateways_of_one_name_harm_each_other_in_nothing(place: Place) -> None:
    one = place.gateway("one", sandbox={"gateway": "twin"})
    with staying(place.user(one)) as clients:
        other = place.gateway("other", sandbox={"gateway": "twin"})
        assert "twin-2" in other.log()
        with staying(place.user(other)):
            time.sleep(5.0)  # two rounds of everything that removes sandboxes
            assert {pod["metadata"]["labels"][labels.GATEWAY] for pod in place.pods()} == {"twin", "twin-2"}
            nothing_left(other.kill())
            other.start()
            until(lambda: len(place.pods()) == 1, 10, "the second one's own being removed")
        assert [client.poll() for client in clients] == [None]
        assert place.user(other).run("echo in").out == b"in\n"
        assert "sandbox.reaped" not in other.log()


def leads_before_it_serves(gateway: Gateway, before: int) -> bool:
    """Whether the life that began after so much of the log had no silence to wait for."""
    events = [json.loads(line)["event"] for line in gateway.log()[before:].splitlines() if line.startswith("{")]
    return "leading" in events[: events.index(Code.SERVING)]


def test_the_only_gateway_killed_and_started_again_goes_on_at_once(place: Place) -> None:
    gateway = place.gateway("one", profile={"warm": 1})
    place.filled(1)
    with staying(place.user(gateway)):
        place.filled(1)
        nothing_left(gateway.kill())
        before = len(gateway.log())
        gateway.start()
        assert leads_before_it_serves(gateway, before)
        until(lambda: not place.pods(labels.CLAIMED), LEASE_DURATION / 2, "its earlier life's sandbox being removed")
        place.filled(1)


def test_the_only_gateway_stopped_and_started_again_leads_at_once(place: Place) -> None:
    gateway = place.gateway("one", profile={"warm": 1})
    for _ in range(3):
        place.filled(1)
        gateway.stop()
        before = len(gateway.log())
        gateway.start()
        assert leads_before_it_serves(gateway, before)
        place.filled(1, LEASE_DURATION / 2)
        assert place.user(gateway).run("echo in").out == b"in\n"
