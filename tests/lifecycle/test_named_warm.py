"""Named sandboxes that were warm: a name is one sandbox, whichever gateway is killed, and starts at once."""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sshgate.lifecycle import schema as labels
from tests.lifecycle.place import Place, mark, names, note
from tests.rig.cluster import IMAGE, Namespace
from tests.rig.gateway import Gateway, nothing_left
from tests.rig.ssh import Ended
from tests.rig.terminal import OnTerminal
from tests.rig.waiting import until

pytestmark = pytest.mark.cluster

# `SSHGATE_NAMED=1000` for a run before a release: so many logins, over three tenths as many names, with five kills.
LOGINS = int(os.environ.get("SSHGATE_NAMED", "200"))
NAMES = LOGINS * 3 // 10
KILLS = 5 if LOGINS >= 1000 else 3
AT_ONCE = 6
POOL = 6
WARM: dict[str, Any] = {"warm": 2}


def leases(space: Namespace) -> dict[str, str]:
    """The uid of the pod that each name's Lease belongs to."""
    metas = [lease["metadata"] for lease in space.leases()]
    names = [meta for meta in metas if meta.get("labels", {}).get("app.kubernetes.io/component") == "name"]
    return {meta["labels"][labels.NAME]: meta["ownerReferences"][0]["uid"] for meta in names}


def verb(place: Place, gateway: Gateway, word: str, login: str = "dev") -> str:
    done = place.user(gateway, login).run(word, options=("-s",))
    assert done.status == 0, done.both
    return done.out.decode()


def test_a_name_takes_a_warm_sandbox_and_is_that_one_at_every_gateway(place: Place) -> None:
    one, two = place.gateway("one", profile=WARM), place.gateway("two", profile=WARM)
    before = names(place.filled(2))
    first = place.user(one, "dev=work").run("echo x > /tmp/mark; cat /etc/hostname; echo $SSHGATE_NAME")
    assert first == Ended(0, b"sandbox\nwork\n", b"")
    # The name is written on the pod while the program starts.
    (pod,) = until(lambda: [pod for pod in place.pods(labels.CLAIMED) if mark(pod, labels.NAME)], 20, "its name")
    assert pod["metadata"]["name"] in before
    assert (mark(pod, labels.NAME), mark(pod, labels.USER)) == ("work", labels.user_hash("dev"))
    assert note(pod, labels.KEPT_FOR) == "600"
    assert leases(place.space) == {"work": pod["metadata"]["uid"]}
    assert place.user(two, "dev=work").run("cat /tmp/mark").out == b"x\n"
    assert [re.findall(r'"how": "(\w+)"', gateway.log()) for gateway in (one, two)] == [["warm"], ["joined"]]
    _, line = verb(place, two, "sandboxes").splitlines()
    assert re.match(rf"work +default +\w+ .* {pod['metadata']['name']}$", line)
    # The name can be used again at once, before the pod and its Lease are gone.
    place.filled(2)
    verb(place, two, "end", "dev=work")
    again = place.user(one, "dev=work").run("cat /tmp/mark; echo $SSHGATE_NAME")
    assert (again.status, again.out) == (0, b"work\n"), again.both
    assert one.log().count('"how": "warm"') == 2
    verb(place, one, "end", "dev=work")
    until(lambda: not leases(place.space), 60, "the end of the name's Lease")


def test_a_name_has_the_profile_it_was_begun_with_whichever_kept_the_pod_warm(place: Place) -> None:
    """Pods of profiles that differ in what the gateway allows are the same, and each login may take any of them."""
    wide = {"extends": "default", "forward": {"elsewhere": True}}
    gateway = place.gateway(profile={"warm": 1}, profiles={"wide": wide})
    place.filled(2)
    for name in ("one", "two"):
        assert place.user(gateway, f"dev={name}").run("true").status == 0
    assert gateway.log().count('"how": "warm"') == 2
    for name in ("one", "two"):
        place.user(gateway, f"dev={name}").run(options=("-W", "192.0.2.1:9"))
        verb(place, gateway, "end", f"dev={name}")
    assert gateway.log().count("only the sandbox's own localhost can be reached here") == 2


def test_what_was_parked_in_it_neither_shows_nor_keeps_it(place: Place) -> None:
    limits = {"detached": "1s"}
    gateway = place.gateway(profile={"warm": 1, "image": IMAGE, "shell": "/bin/bash", "limits": limits})
    place.filled(1)
    gone = "until [ $(grep -lz '[_]_l' /proc/[0-9]*/cmdline 2>/dev/null | wc -l) = 1 ]; do sleep 0.1; done"
    assert place.user(gateway, "dev=work").run(gone).status == 0, "only the launcher that is the program's parent"
    resident = "until ! grep -lzq '^#sshgate-hol[d]' /proc/[0-9]*/cmdline 2>/dev/null; do sleep 0.1; done"
    assert place.user(gateway, "dev=work").run(resident, limit=20).status == 0, "what was to keep held sessions"
    until(lambda: not place.pods(labels.CLAIMED), 60, "the end of the one that nobody came back to")


def test_a_held_session_begins_at_the_resident_that_waited_for_it(place: Place) -> None:
    """It was there before anybody had logged in, and its program has the login's names and home all the same."""
    gateway = place.gateway(profile={"warm": 1, "image": IMAGE, "shell": "/bin/bash", "hold": "named"})
    residents = "grep -lz '^#sshgate-hol[d]' /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3 | sort -n | xargs echo"
    (pod,) = place.filled(1)

    def inside() -> str:
        return place.space.kubectl("exec", pod["metadata"]["name"], "--", "/bin/sh", "-c", residents).strip()

    until(lambda: len(inside().split()) == 2, 20, "the resident, and the program that is attached to it")
    before = inside()
    with OnTerminal(place.user(gateway, "dev=work").argv(options=("-tt",))) as terminal:
        terminal.enter("echo in $SSHGATE_NAME, $SSHGATE_USER $HOME $PWD; " + residents)
        found = terminal.expect(rb"in work, dev (\S+) (\S+)\r\n([0-9 ]+)\r\n")
        assert found[1] == found[2]
        assert found[3].decode().split() == before.split()
    with OnTerminal(place.user(gateway, "dev=work").argv(options=("-tt",))) as terminal:
        terminal.expect(b"in work")
        terminal.enter("exit")
        assert terminal.until_end() == 0
    assert gateway.log().count('"how": "warm"') == 1
    verb(place, gateway, "end", "dev=work")


def test_one_with_a_home_or_without_a_pool_is_called_after_its_name(place: Place) -> None:
    gateway = place.gateway()
    assert place.user(gateway, "dev=work").run("cat /etc/hostname; echo $SSHGATE_NAME").out == b"work\nwork\n"
    (pod,) = place.pods()
    assert pod["metadata"]["name"] == labels.named_pod("dev", "work")
    assert leases(place.space) == {"work": pod["metadata"]["uid"]}
    verb(place, gateway, "end", "dev=work")


def test_one_of_an_older_gateway_is_joined_and_none_starts_warm_while_that_gateway_lives(place: Place) -> None:
    one = place.gateway("one", profile=WARM)
    place.filled(2)
    assert place.user(one, "dev=old").run("echo x > /tmp/mark").status == 0
    verb(place, one, "end", "dev=old")
    until(lambda: not place.pods(labels.CLAIMED), 30, "the end of it")
    # What an older one leaves: a Lease that names no way to find names, and a pod called after its name.
    older = {
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {"holderIdentity": "older", "renewTime": TIME},
        "metadata": {"name": "sshgate-life-older", "labels": {
            labels.MANAGED_BY: labels.MANAGED, "app.kubernetes.io/component": "presence",
        }},
    }  # fmt: skip
    place.space.apply(older)
    time.sleep(6)
    assert place.user(one, "dev=old").run("echo x > /tmp/mark").status == 0
    (pod,) = place.pods(labels.CLAIMED)
    assert pod["metadata"]["name"] == labels.named_pod("dev", "old")
    place.space.kubectl("delete", "lease", "sshgate-life-older")
    place.space.kubectl("delete", "leases", "--selector=app.kubernetes.io/component=name")
    two = place.gateway("two", profile=WARM)
    assert place.user(two, "dev=old").run("cat /tmp/mark").out == b"x\n"
    assert leases(place.space) == {"old": pod["metadata"]["uid"]}
    verb(place, two, "end", "dev=old")


TIME = "2026-01-01T00:00:00.000000Z"


def test_a_name_whose_pod_is_gone_and_one_whose_gateway_died_are_given_at_once(place: Place) -> None:
    gateway = place.gateway(profile=WARM)
    place.filled(2)
    dangling = {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": "sshgate-gone",
        "uid": "00000000-0000-0000-0000-000000000000",
    }
    lease = {
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {},
        "metadata": {"name": labels.name_lease("dev", "work"), "ownerReferences": [dangling], "labels": {
            labels.NAME: "work", "app.kubernetes.io/component": "name",
        }},
    }  # fmt: skip
    place.space.apply(lease)
    done = place.user(gateway, "dev=work").run("echo $SSHGATE_NAME")
    assert (done.status, done.out) == (0, b"work\n"), done.both
    (pod,) = place.pods(labels.CLAIMED)
    assert leases(place.space) == {"work": pod["metadata"]["uid"]}
    verb(place, gateway, "end", "dev=work")


# The words of ssh, or of a gateway that was killed or stops, for a login that did not work out.
CUT = (
    b"Connection refused", b"Connection closed", b"Connection reset", b"closed by remote host", b"Broken pipe",
    b"not known",
)  # fmt: skip


def _result(ended: Ended) -> str:
    if ended.status == 0:
        return "done"
    # A client whose connection is cut in the middle of its session may print nothing.
    cut = ended.status == 255 and (not ended.err or any(words in ended.err for words in CUT))
    return "refused" if cut else f"{ended.status}: {ended.both[-300:]}"


@pytest.mark.slow
@pytest.mark.timeout(180 + LOGINS)
def test_logins_to_names_by_gateways_that_are_killed_meanwhile_find_one_sandbox_each(
    place: Place, record_property: Callable[[str, object], None]
) -> None:
    """A user's name is one sandbox for all gateways: what its first login wrote there, every later one reads."""
    profile = {"warm": POOL, "refill_per_minute": 1200, "resources": {"requests": {"cpu": "1m", "memory": "4Mi"}}}
    limits = {"sandboxes_per_user": 1000, "sandboxes": 1000}
    gateways = [place.gateway(name, profile=profile, limits=limits) for name in ("one", "two", "three")]
    place.filled(POOL)
    chance = random.Random(16)
    # Some ten names are in use at a time, each by several logins, often at once: the node has room for a hundred pods.
    numbers = sorted((number % NAMES for number in range(LOGINS)), key=lambda one: (one // 10, chance.random()))
    todo = [f"n{number}" for number in numbers]
    wanted = Counter(todo)
    results: Counter[str] = Counter()
    ids: defaultdict[str, set[bytes]] = defaultdict(set)
    lock = threading.Lock()

    def log_in(name: str) -> None:
        for _ in range(20):
            gateway = gateways[chance.randrange(3)]
            ended = place.user(gateway, f"dev={name}").run(
                "[ -s /tmp/id ] || (set -C; cat /proc/sys/kernel/random/uuid > /tmp/id) 2>/dev/null; "
                "until [ -s /tmp/id ]; do :; done; cat /tmp/id",
                limit=90,
            )
            with lock:
                results[_result(ended)] += 1
                if ended.status == 0:
                    ids[name].add(ended.out)
                    wanted[name] -= 1
            if ended.status == 0:
                break
            time.sleep(0.5)
        else:
            raise AssertionError(ended.both)
        if not wanted[name]:
            done = place.user(gateway, f"dev={name}").run("end", options=("-s",))
            results["ended"] += done.status == 0

    killed = 0
    with ThreadPoolExecutor(AT_ONCE) as logins:
        working = [logins.submit(log_in, name) for name in todo]
        while killed < KILLS and not all(one.done() for one in working):
            if results["done"] >= LOGINS * (killed + 1) // (KILLS + 1):
                gateway = gateways[killed % 3]
                nothing_left(gateway.kill())
                gateway.start()
                killed += 1
            time.sleep(0.1)
        for one in working:
            one.result(timeout=120 + LOGINS)
    log = "".join(gateway.log() for gateway in gateways)
    how = Counter(re.findall(r'"how": "(\w+)"', log))
    record_property("named", json.dumps({**results, **how, "killed": killed}))
    print(f"{dict(results)}, {dict(how)}, {killed} kills, {len(ids)} names")
    assert killed == KILLS
    assert set(results) <= {"done", "refused", "ended"}, results
    assert results["refused"] <= killed * AT_ONCE * 10, "some try again until their gateway is back"
    assert {name: len(found) for name, found in ids.items()} == dict.fromkeys(ids, 1)
    assert len(ids) == NAMES
    assert how["warm"] > NAMES / 2
    for name in {mark(pod, labels.NAME) for pod in place.pods(labels.CLAIMED)} - {None}:
        # An end that a kill cut short is the user's to repeat.
        place.user(gateways[0], f"dev={name}").run("end", options=("-s",))
    until(lambda: not place.pods(labels.CLAIMED), 60, "nothing being left but the pool")
    until(lambda: not leases(place.space), 60, "the end of the names' Leases")
