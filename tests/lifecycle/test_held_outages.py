"""Held sessions while the API server is away and after their gateway was killed: no byte is lost or doubled."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import pytest

from tests.lifecycle.conftest import MakeReplica, UserAt
from tests.rig.balancer import Balancer
from tests.rig.cluster import Namespace
from tests.rig.gateway import nothing_left
from tests.rig.ssh import Ssh
from tests.rig.terminal import OnTerminal
from tests.rig.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

HELD = {"default": {"hold": "named"}}
COUNT = "for i in $(seq 1 400); do echo n-$i-; sleep 0.05; done; echo ov''er"
EVERY = [str(number) for number in range(1, 401)]


def on(ssh: Ssh) -> OnTerminal:
    return OnTerminal(ssh.argv(options=("-tt",)))


def upto(terminal: OnTerminal, pattern: bytes) -> str:
    """What is shown up to this."""
    found = terminal.expect(pattern, limit=60)
    return found.string[: found.end()].decode()


def finish(work: Ssh, space: Namespace) -> None:
    assert work.run("end", options=("-s",)).status == 0
    until(lambda: not space.living(), 30, "the end of it")


def test_a_session_goes_on_where_it_was_when_the_api_server_comes_back(
    space: Namespace, replica: MakeReplica, user: UserAt, tmp_path: Path
) -> None:
    with Balancer.before_server(space.gateway, tmp_path) as (proxy, place):
        made = replica(profiles=HELD, sandbox={"provider": "kubernetes", "namespace": space.name, **place})
        work = user("dev", made).as_user("dev=work")
        with on(work) as terminal:
            terminal.enter(COUNT + '; read line; echo "typed: $line"; exit 4')
            shown = upto(terminal, b"n-20-")
            proxy.cut()
            shown += upto(terminal, b"your program runs on, connecting again")
            terminal.enter("during the outage")
            time.sleep(8)
            proxy.mend()
            shown += upto(terminal, b"typed: during the outage")
            assert terminal.until_end() == 4
        shown = re.sub(r"\r\nsshgate: [^\n]*\n", "", shown)
        assert re.findall(r"n-(\d+)-", shown[shown.index("n-1-") :]) == EVERY
        finish(work, space)


def test_another_gateway_shows_all_of_it_after_the_first_was_killed(
    space: Namespace, replica: MakeReplica, user: UserAt
) -> None:
    one, two = replica(profiles=HELD), replica(profiles=HELD)
    here, there = user("dev", one).as_user("dev=work"), user("dev", two).as_user("dev=work")
    with on(here) as terminal:
        terminal.enter(COUNT)
        terminal.expect(b"n-20-", limit=60)
        with on(there.as_user("dev=work=1")) as other:  # both gateways at once
            other.expect(b"n-1-.*n-30-", limit=60)
            terminal.expect(b"n-40-", limit=60)
            (held,) = json.loads(there.run("sessions", "--json", options=("-s",)).out)[0]["sessions"]
            assert held["state"] == "attached from 127.0.0.1, 127.0.0.1"
        terminal.expect(b"n-50-", limit=60)
        nothing_left(one.kill())
        assert terminal.until_end() == 255
    with on(there) as terminal:
        shown = terminal.expect(b"n-400-\r\nover", limit=60).string.decode()
        assert re.findall(r"n-(\d+)-\r", shown) == EVERY
        terminal.enter("exit 6")
        assert terminal.until_end() == 6
    finish(there, space)


def test_a_gateway_that_drains_keeps_no_exec_for_who_leaves(
    space: Namespace, replica: MakeReplica, user: UserAt
) -> None:
    gateway, other = replica(profiles=HELD, ssh={"drain": "60s"}), replica(profiles=HELD)
    work = user("dev", gateway).as_user("dev=work")
    there = user("dev", other).as_user("dev=work")
    attached = "grep -lz '^#sshgate-hol[d]' /proc/[0-9]*/cmdline 2>/dev/null | wc -l"

    def inside() -> int:
        """The resident, and the programs that are attached to it."""
        return int(there.run(attached).out)

    with on(work) as terminal:
        terminal.enter("echo be''gun")
        terminal.expect(b"begun")
    until(lambda: inside() == 2, 20, "the exec that waits")
    with on(work.as_user("dev=stays")) as stays:
        stays.enter("echo be''gun")
        stays.expect(b"begun")
        with on(work) as terminal:
            terminal.expect(b"begun")
            assert gateway.process is not None
            gateway.process.send_signal(signal.SIGTERM)
            terminal.expect(b"this gateway is shutting down")
        until(lambda: inside() == 1, 20, "the end of the one that was used")
        time.sleep(2)
        assert inside() == 1
        assert gateway.process.poll() is None
    assert gateway.process.wait(20) == 0
    assert there.as_user("dev=stays").run("end", options=("-s",)).status == 0
    finish(there, space)
