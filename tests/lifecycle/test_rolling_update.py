"""Two replicas replaced one after the other while people log in: as a Deployment does it, behind one port."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from sshgate.lifecycle import schema as labels
from tests.lifecycle.place import Place, names
from tests.rig.balancer import Balancer
from tests.rig.gateway import Gateway, free_port
from tests.rig.scrape import get
from tests.rig.ssh import Ended, Ssh
from tests.rig.waiting import until

pytestmark = pytest.mark.cluster

USERS_AT_ONCE = 3
# Each replica has a host key of its own here; in a cluster they share a Secret.
ANY_HOST_KEY = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null")


class Load:
    """People who log in again and again until ``stop``."""

    def __init__(self, ssh: Ssh) -> None:
        self.ended: list[Ended] = []
        self._ssh = ssh
        self._over = threading.Event()
        self._workers = [threading.Thread(target=self._work) for _ in range(USERS_AT_ONCE)]

    def __enter__(self) -> Load:
        for worker in self._workers:
            worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for worker in self._workers:
            worker.join()

    def _work(self) -> None:
        while not self._over.is_set():
            self.ended.append(self._ssh.run("echo in; exit 4", options=ANY_HOST_KEY))


def started(place: Place, name: str) -> Gateway:
    """A replica that says that it is ready."""
    health = free_port()
    made = place.gateway(name, profile={"warm": 2}, telemetry={"listen": f"127.0.0.1:{health}"}, ssh={"drain": "20s"})
    until(lambda: get(health, "/readyz")[0] == 200, 20, f"{name} being ready")
    return made


def test_no_login_no_named_sandbox_and_no_warm_pod_is_lost(place: Place) -> None:
    old = [started(place, name) for name in ("old-a", "old-b")]
    new: list[Gateway] = []
    with Balancer([gateway.port for gateway in old]) as service:
        ssh = replace(place.user(old[0]), port=service.port)
        work = ssh.as_user("dev=work")
        assert work.run("echo kept > /tmp/file", options=ANY_HOST_KEY).status == 0
        place.filled(2)
        with Load(ssh) as load:
            for gateway in old:
                seen = len(load.ended)
                until(lambda: len(load.ended) >= seen + 4, 60, "logins before it")  # noqa: B023
                new.append(started(place, "new"))
                service.ports.append(new[-1].port)
                service.ports.remove(gateway.port)
                gateway.stop()
                assert work.run("cat /tmp/file", options=ANY_HOST_KEY).out == b"kept\n"
            seen = len(load.ended)
            until(lambda: len(load.ended) >= seen + 4, 60, "logins after it")
        assert {(ended.status, ended.out) for ended in load.ended} == {(4, b"in\n")}, load.ended
        # With nobody logging in: what the one that leaves had made ready is the other's.
        kept = names(place.filled(2))
        service.ports.remove(new[0].port)
        new[0].stop()
        assert names(place.ready()) == kept
        assert ssh.run("echo in", options=ANY_HOST_KEY).out == b"in\n"
        assert work.run("end", options=("-s", *ANY_HOST_KEY)).status == 0
        until(lambda: not place.pods(labels.CLAIMED), 30, "the end of all sandboxes in use")
