"""What an outage of the cluster's own parts does to named sandboxes, and to what is held there: nothing that lasts."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Self

import pytest

from tests.lifecycle.conftest import MakeReplica, UserAt
from tests.rig.cluster import Namespace, component
from tests.rig.gateway import nothing_left
from tests.rig.ssh import Ssh
from tests.rig.terminal import OnTerminal
from tests.rig.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.alone, pytest.mark.timeout(240)]

# From recovery to the last orphan's removal.
WITHIN = 60.0
# `SSHGATE_SESSIONS=20` and `SSHGATE_OUTAGE=30` for a run before a release.
SESSIONS = int(os.environ.get("SSHGATE_SESSIONS", "10"))
OUTAGE = float(os.environ.get("SSHGATE_OUTAGE", "22"))
START = "echo $$ > /tmp/pid; setsid sh -c 'echo $$ > /tmp/kept; exec sleep 611' </dev/null >/dev/null 2>&1 & exit 0"
KEPT = "read p < /tmp/kept; tr '\\0' ' ' < /proc/$p/cmdline"


@contextmanager
def without(name: str) -> Iterator[None]:
    """A part of the cluster is killed while the body runs."""
    component("stop", name)
    try:
        yield
    finally:
        component("start", name)


def pods(space: Namespace) -> dict[str, str]:
    """Names and uids of the pods nobody has deleted."""
    living = [pod["metadata"] for pod in space.pods() if "deletionTimestamp" not in pod["metadata"]]
    return {meta["name"]: meta["uid"] for meta in living}


def attached(ssh: Ssh) -> subprocess.Popen[bytes]:
    client = ssh.start("echo up; exec sleep 600")
    assert client.stdout is not None
    if client.stdout.readline() != b"up\n":
        client.kill()
        raise AssertionError(client.communicate()[1])
    return client


def finish(clients: list[subprocess.Popen[bytes]]) -> None:
    for client in clients:
        client.kill()
        client.communicate()


class Counted:
    """A held session whose program counts, and repeats each line that is typed: all of it, once, or not."""

    PROGRAM = (
        "stty -echo; (i=0; while sleep 0.05; do i=$((i+1)); echo n-$i-; done) & "
        'while read line; do echo "t-$line-"; done; exit 4'
    )

    def __init__(self, work: Ssh) -> None:
        self.typed: list[str] = []
        self._shown = ""
        self._terminal = OnTerminal(work.argv(options=("-tt",)))
        self._terminal.enter(self.PROGRAM)

    def __enter__(self) -> Self:
        self._upto(b"n-10-\r\n")
        return self

    def __exit__(self, *error: object) -> None:
        self._terminal.__exit__(None, None, None)

    def _upto(self, pattern: bytes) -> None:
        found = self._terminal.expect(pattern, limit=60)
        self._shown += found.string[: found.end()].decode()

    def type(self, word: str) -> None:
        self._terminal.enter(word)
        self.typed.append(word)

    def goes_on(self) -> None:
        """Its client is the same, and has all that was shown and typed so far."""
        self.type(f"word-{len(self.typed)}")
        self._upto(f"t-{self.typed[-1]}-\r\n".encode())
        self._upto(rb"n-\d+-\r\n")
        shown = re.sub(r"\r\nsshgate: [^\n]*\n|\r\x1b\[2K", "", self._shown)
        shown = shown[shown.index("n-1-") :]
        numbers = [int(one) for one in re.findall(r"n-(\d+)-", shown)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert re.findall(r"t-(\S+)-", shown) == self.typed
        assert self._terminal.client.poll() is None


@pytest.mark.usefixtures("own_cluster")
def test_an_api_server_that_was_away_costs_no_named_sandbox_and_leaves_no_orphan(
    space: Namespace, replica: MakeReplica, user: UserAt
) -> None:
    one, two = replica(), replica()
    dev, eve = user("dev", one), user("eve", two)
    work = dev.as_user("dev=work")
    assert work.run(START).status == 0
    before = pods(space)
    clients = [attached(work), *(attached(dev) for _ in range(2)), attached(eve)]
    with ExitStack() as stack:
        stack.callback(finish, clients)
        counted = stack.enter_context(Counted(work))
        with without("apiserver"):
            counted.type("meanwhile")
            # Longer than a gateway may be silent: nobody is to be taken for dead meanwhile.
            assert [client.wait(60) for client in clients] == [255] * 4
            until(lambda: work.run("true", limit=30).status == 255, 5, "a sentence for who logs in meanwhile")
            subprocess.run(["sleep", f"{OUTAGE:g}"], check=True)
        counted.goes_on()
        for name in ("containerd", "kubelet"):
            with without(name):
                counted.type(f"without-{name}")
            counted.goes_on()
        until(lambda: pods(space) == before, WITHIN, "the removal of the sessions' own sandboxes")
        assert work.run(KEPT).out == b"sleep 611 "
        assert pods(space) == before
        assert work.run("end", options=("-s",)).status == 0
        until(lambda: not pods(space), 30, "the end of it")


@pytest.mark.usefixtures("own_cluster")
def test_a_container_runtime_that_was_killed_costs_no_named_sandbox(
    space: Namespace, replica: MakeReplica, user: UserAt
) -> None:
    served = replica()
    # Somebody else than before an outage: a kubelet that found no API server takes its time to end a pod.
    dan = user("dan", served)
    work = dan.as_user("dan=work")
    assert work.run(START).status == 0
    before = pods(space)
    clients = [attached(work), attached(dan)]
    try:
        # What the kubelet has not reported by then, it cannot report, and a login would wait for it.
        until(lambda: all(pod["status"].get("phase") == "Running" for pod in space.pods()), 30, "the report")
        with without("containerd"):
            # Not by what was attached before: by a login that tries to enter it anew, for as long as one tries.
            until(lambda: b"cannot be entered" in work.run("true", limit=60).err, 90, "a sentence for who logs in")
        finish(clients)
        until(lambda: pods(space) == before, WITHIN, "the removal of the sessions' own sandboxes")
        until(lambda: work.run(KEPT).out == b"sleep 611 ", 60, "the program that was left running")
        assert work.run("end", options=("-s",)).status == 0
        until(lambda: not pods(space), 30, "the end of it")
    finally:
        finish(clients)


def test_both_gateways_killed_with_many_sessions_leave_nothing_but_named_sandboxes(
    space: Namespace, replica: MakeReplica, user: UserAt
) -> None:
    one, two = replica(), replica()
    work = user("fay", one).as_user("fay=work")
    assert work.run(START).status == 0
    before = pods(space)
    clients = [attached(work)]
    clients += [attached(user(f"user{number}", (one, two)[number % 2])) for number in range(SESSIONS)]
    try:
        assert len(pods(space)) == len(before) + SESSIONS, space.pods()
        for gateway in (one, two):
            nothing_left(gateway.kill())
        three = replica()
        until(lambda: pods(space) == before, WITHIN, "the removal of all orphans")
        again = user("fay", three).as_user("fay=work")
        assert again.run(KEPT).out == b"sleep 611 "
        assert again.run("end", options=("-s",)).status == 0
        until(lambda: not pods(space), 30, "the end of it")
    finally:
        finish(clients)
