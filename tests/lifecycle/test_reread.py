"""A gateway with a pool whose profiles change in its file: the pool follows, without a restart."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from sshgate.lifecycle import schema as labels
from tests.lifecycle.place import Place, mark, names, note, staying
from tests.rig.gateway import Gateway
from tests.rig.waiting import until

pytestmark = pytest.mark.cluster


def change(gateway: Gateway, **profile: Any) -> None:
    """Another default profile in the gateway's file, whole at once as an editor or the kubelet writes it."""
    file = gateway.place / "sshgate.yaml"
    settings = yaml.safe_load(file.read_text())
    settings["profiles"]["default"] |= profile
    new = file.with_suffix(".new")
    new.write_text(yaml.safe_dump(settings))
    new.rename(file)


def test_a_changed_profile_replaces_what_is_warm_and_touches_no_session(place: Place) -> None:
    gateway = place.gateway(profile={"warm": 2})
    ssh = place.user(gateway)
    old = place.filled(2)
    with staying(ssh) as (client,):
        before = names([*place.filled(2), *old])
        templates = {mark(pod, labels.TEMPLATE) for pod in old}
        requests = {"cpu": "15m", "memory": "40Mi"}
        change(gateway, resources={"requests": requests, "limits": {"cpu": "1", "memory": "512Mi"}})
        until(lambda: not before & names(place.pods(labels.WARM)), 60, "the old ones being replaced")
        for pod in place.filled(2):
            assert mark(pod, labels.TEMPLATE) not in templates
            assert pod["spec"]["containers"][0]["resources"]["requests"].items() >= requests.items()
        assert client.poll() is None, "who is logged in goes on"
    assert ssh.run("echo in").out == b"in\n"
    assert gateway.log().count('"serving"') == 1
    claims = [line for line in gateway.log().splitlines() if '"sandbox.claim"' in line]
    assert '"how": "warm"' in claims[-1]


def test_a_pool_is_switched_on_and_off_while_the_gateway_runs(place: Place) -> None:
    gateway = place.gateway(profile={"warm": 0})
    ssh = place.user(gateway)
    assert ssh.run("echo in").out == b"in\n"
    until(lambda: not place.pods(), 20, "no sandbox")
    change(gateway, warm=2)
    instance = {note(pod, labels.INSTANCE) for pod in place.filled(2)}
    assert len(instance) == 1
    change(gateway, warm=0)
    until(lambda: not place.pods(), 30, "the pool being gone")
    assert ssh.run("echo in").out == b"in\n"
    assert gateway.log().count('"config.reread"') == 2
