"""Two gateways, one namespace, one name: the same sandbox, whichever is asked, and whichever dies."""

from __future__ import annotations

import pytest

from tests.lifecycle.conftest import MakeReplica, UserAt
from tests.rig.cluster import Namespace
from tests.rig.gateway import nothing_left
from tests.rig.terminal import OnTerminal
from tests.rig.waiting import until

pytestmark = pytest.mark.cluster


def notes(space: Namespace, name: str) -> list[str]:
    """The lives that are attached to the sandbox of this name."""
    (pod,) = [pod for pod in space.pods() if pod["metadata"]["labels"].get("sshgate.dev/name") == name]
    return [key for key in pod["metadata"]["annotations"] if key.startswith("attached.sshgate.dev/")]


def test_both_gateways_lead_to_one_sandbox_and_it_survives_either(
    space: Namespace, replica: MakeReplica, user: UserAt
) -> None:
    one, two = replica(), replica()
    here, there = user("dev", one).as_user("dev=work"), user("dev", two).as_user("dev=work")
    with here.running("echo up > /tmp/mark; cat /tmp/mark; sleep 600") as lost:
        with there.running() as kept:
            assert there.run("cat /tmp/mark").out == b"up\n"
            assert len(space.living()) == 1
            assert len(notes(space, "work")) == 2
            nothing_left(one.kill())
            assert lost.wait(20) == 255
            until(lambda: len(notes(space, "work")) == 1, 60, "the dead gateway's clients being detached")
            assert kept.poll() is None
            assert there.run("cat /tmp/mark").out == b"up\n"
        # Nothing of the second gateway's is left in it but the sandbox; the first one's program was not its to end.
        until(lambda: not notes(space, "work"), 30, "the last client being detached")
    one.start()
    assert here.run("cat /tmp/mark").out == b"up\n"
    assert there.run("end", options=("-s",)).status == 0
    until(lambda: not space.living(), 30, "the end of it")


def test_a_name_made_at_both_at_once_is_one_sandbox(space: Namespace, replica: MakeReplica, user: UserAt) -> None:
    gateways = [replica(), replica()]
    users = [user("dev", gateway).as_user("dev=race") for gateway in gateways]
    clients = [ssh.start("echo x >> /tmp/both") for ssh in users for _ in range(3)]
    ended = [client.communicate(timeout=60) for client in clients]
    assert [client.returncode for client in clients] == [0] * 6, ended
    assert users[0].run("cat /tmp/both").out == b"x\n" * 6
    assert len(space.living()) == 1
    assert users[1].run("end", options=("-s",)).status == 0
    until(lambda: not space.living(), 30, "the end of it")


def test_a_named_sandbox_outlives_a_gateway_that_stops(space: Namespace, replica: MakeReplica, user: UserAt) -> None:
    one = replica()
    work = user("dev", one).as_user("dev=work")
    assert work.run("echo x > /tmp/mark; setsid sleep 600 </dev/null >/dev/null 2>&1 & exit 0").status == 0
    with work.running():
        one.stop()
    assert len(space.living()) == 1
    assert not notes(space, "work")
    two = replica()
    again = user("dev", two).as_user("dev=work")
    assert again.run("cat /tmp/mark; pgrep -f 'sleep 60[0]' >/dev/null && echo running").out == b"x\nrunning\n"
    assert again.run("end", options=("-s",)).status == 0
    until(lambda: not space.living(), 30, "the end of it")


def test_a_terminal_of_a_killed_gateway_keeps_no_sandbox_and_what_it_left_running_does(
    space: Namespace, replica: MakeReplica, user: UserAt
) -> None:
    short = {"default": {"hold": "never", "limits": {"detached": "10s"}}}
    other = replica(profiles=short)  # it leads, or will
    killed = replica(profiles=short)
    idle, kept = (user("dev", killed).as_user(f"dev={name}") for name in ("idle", "kept"))
    with OnTerminal(idle.argv(options=("-tt",))) as one, OnTerminal(kept.argv(options=("-tt",))) as two:
        one.enter("echo rea''dy; sleep 600")
        one.expect(b"ready")
        two.enter("setsid sleep 600 </dev/null >/dev/null 2>&1 & echo rea''dy")
        two.expect(b"ready")
        nothing_left(killed.kill())
        until(lambda: names(space) == ["kept"], 90, "the end of the one with nothing but a terminal")
        assert notes(space, "kept") == []
    assert user("dev", other).as_user("dev=kept").run("end", options=("-s",)).status == 0
    until(lambda: not space.living(), 30, "the end of it")


def names(space: Namespace) -> list[str]:
    pods = [pod["metadata"] for pod in space.pods() if "deletionTimestamp" not in pod["metadata"]]
    return sorted(pod["labels"]["sshgate.dev/name"] for pod in pods)


def test_a_start_that_is_given_up_leaves_nothing(space: Namespace, replica: MakeReplica, user: UserAt) -> None:
    served = replica(profiles={"default": {"node_selector": {"no": "such-node"}, "limits": {"unschedulable": "30s"}}})
    client = user("dev", served).as_user("dev=never").start("true")
    until(lambda: space.living(), 20, "the pod")
    client.kill()
    client.communicate()
    until(lambda: not space.living(), 30, "the end of it")


def test_the_kubelet_ends_it_with_every_gateway_dead(space: Namespace, replica: MakeReplica, user: UserAt) -> None:
    overrides = {"activeDeadlineSeconds": 6}
    served = replica(profiles={"default": {"pod_overrides": overrides}})
    with user("dev", served).as_user("dev=brief").running():
        nothing_left(served.kill())
        until(lambda: phases(space) == ["Failed"], 60, "the kubelet ending it")
    # What is left of it is for the next gateway.
    replica()
    until(lambda: not space.pods(), 60, "the removal of what the kubelet ended")


def phases(space: Namespace) -> list[str]:
    return [pod["status"]["phase"] for pod in space.pods()]
