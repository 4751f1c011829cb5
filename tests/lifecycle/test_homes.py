"""Homes: what a named sandbox keeps between its lives, for its user alone."""

from __future__ import annotations

import json
import re

import pytest

from tests.lifecycle.conftest import MakeReplica, UserAt
from tests.rig.cluster import BUSYBOX, Namespace
from tests.rig.gateway import Gateway
from tests.rig.ssh import Ssh
from tests.rig.waiting import until

pytestmark = pytest.mark.cluster

HOME = {"size": "64Mi", "storage_class": "local-path", "path": "/home/dev"}


@pytest.fixture
def served(replica: MakeReplica) -> Gateway:
    return replica(profiles={"default": {"home": HOME}})


def verb(ssh: Ssh, word: str) -> str:
    done = ssh.run(word, options=("-s",))
    assert done.status == 0, done.both
    return done.out.decode()


def end(ssh: Ssh, space: Namespace) -> None:
    verb(ssh, "end")
    until(lambda: not space.pods(), 30, "the sandbox being gone")


def test_a_home_is_kept_and_is_its_users_alone(space: Namespace, served: Gateway, user: UserAt) -> None:
    dev, eve = user("dev", served), user("eve", served)
    work = dev.as_user("dev=work")
    assert verb(dev, "homes") == "you have no homes.\n"
    # A new home holds what the image has there; what its user deletes does not come back.
    assert work.run("echo kept > ~/file && test -O ~/.bashrc && rm ~/.bashrc && pwd").out == b"/home/dev\n"
    until(lambda: " starting " not in verb(dev, "sandboxes"), 20, "the watch having told of it")
    assert re.search(r"^work .* yes +sshgate-work-", verb(dev, "sandboxes"), re.MULTILINE)
    assert re.fullmatch(r"NAME +SIZE +AGE +STATE\nwork +64Mi +\d+s +in use\n", verb(dev, "homes"))
    in_use = work.run("delete-home", options=("-s",))
    assert in_use.status == 126
    assert in_use.err == (b"sshgate: your home 'work' is in use; end the sandbox first: `ssh -s USER=work@HOST end`.\n")
    end(work, space)
    assert re.fullmatch(r"NAME +SIZE +AGE +STATE\nwork +64Mi +\d+s +kept\n", verb(dev, "homes"))
    # The next sandbox of this name has it again; that of somebody else, and a nameless one, have not.
    assert work.run("cat ~/file; ls -A ~ | grep -c bashrc").out == b"kept\n0\n"
    assert dev.run("cat ~/file").status == 1
    hers = eve.as_user("eve=work")
    assert hers.run("cat ~/file").status == 1
    assert hers.run("end", options=("-s",)).status == 0
    end(work, space)
    assert re.fullmatch(r"NAME +SIZE +AGE +STATE\nwork +64Mi +\d+s +kept\n", verb(eve, "homes"))
    assert verb(hers, "delete-home") == "home 'work' is deleted.\n"
    assert verb(dev, "homes").splitlines()[1].startswith("work ")
    assert verb(work, "delete-home") == "home 'work' is deleted.\n"
    until(lambda: verb(dev, "homes") == "you have no homes.\n", 30, "the home being gone")
    nothing = work.run("delete-home", options=("-s",))
    assert (nothing.status, nothing.err) == (
        1,
        b"sshgate: you have no home 'work'; `ssh -s USER@HOST homes` lists yours.\n",
    )
    deleted = [json.loads(line) for line in served.log().splitlines() if '"home.deleted"' in line]
    assert [(event["user"], event["name"]) for event in deleted] == [("eve", "work"), ("dev", "work")]


def test_a_home_in_use_elsewhere_is_a_sentence(space: Namespace, served: Gateway, user: UserAt) -> None:
    work = user("dev", served).as_user("dev=shared")
    assert work.run("echo kept > ~/file").status == 0
    end(work, space)
    (claim,) = space.kubectl("get", "persistentvolumeclaims", "--output=name").split()
    space.apply(other_pod(claim.partition("/")[2]))
    try:
        refused = work.run("true", limit=20)
        assert refused.status == 255
        assert refused.err == (
            b"sshgate: your home 'shared' is in use by somebody-else; try again when that has ended.\n"
        )
        assert space.living() == ["somebody-else"]
    finally:
        space.kubectl("delete", "pod", "somebody-else", "--grace-period=1")
    assert work.run("cat ~/file").out == b"kept\n"
    end(work, space)
    assert verb(work, "delete-home") == "home 'shared' is deleted.\n"


def test_no_home_is_left_of_a_refused_start_and_none_is_made_beyond_the_limit(
    space: Namespace, replica: MakeReplica, user: UserAt
) -> None:
    served = replica(profiles={"default": {"home": HOME}}, limits={"homes_per_user": 1})
    dev = user("dev", served)
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"}, "spec": {"hard": {"pods": "0"}}}
    space.apply(quota)
    try:
        until(lambda: '"hard"' in space.kubectl("get", "resourcequota", "full", "--output=jsonpath={.status}"), 20)
        refused = dev.as_user("dev=none").run("true")
        assert refused.status == 255
        assert b"quota 'full' is full" in refused.err
        until(lambda: verb(dev, "homes") == "you have no homes.\n", 20, "the home being gone with the refusal")
    finally:
        space.kubectl("delete", "resourcequota", "full")
    first, second = dev.as_user("dev=first"), dev.as_user("dev=second")
    assert first.run("true").status == 0
    refused = second.run("true")
    assert refused.status == 255
    assert b"you keep 1 of 1 homes" in refused.err
    assert b"delete-home" in refused.err
    end(first, space)
    assert verb(first, "delete-home") == "home 'first' is deleted.\n"
    until(lambda: second.run("true").status == 0, 20, "room for another one")
    end(second, space)
    assert verb(second, "delete-home") == "home 'second' is deleted.\n"


def other_pod(claim: str) -> dict[str, object]:
    """A pod of an operator's that has the volume."""
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "somebody-else"},
        "spec": {
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "terminationGracePeriodSeconds": 1,
            "volumes": [{"name": "home", "persistentVolumeClaim": {"claimName": claim}}],
            "containers": [
                {
                    "name": "look", "image": BUSYBOX, "imagePullPolicy": "Never", "securityContext": security,
                    "command": ["/bin/sh", "-c", "sleep 600"], "volumeMounts": [{"name": "home", "mountPath": "/home"}],
                }
            ],
        },
    }  # fmt: skip
