"""A pool of sandboxes that are ready before anybody asks: full, handed out once, never stale, gone at the end."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sshgate.lifecycle import schema as labels
from sshgate.providers.kubernetes.allocator import EVICTION_SECONDS
from tests.lifecycle.place import Place, mark, names, note, staying
from tests.rig.api import Refused, ask
from tests.rig.cluster import IMAGE
from tests.rig.gateway import STOP_LIMIT, free_port
from tests.rig.scrape import Scraped
from tests.rig.waiting import until

pytestmark = pytest.mark.cluster


def test_a_login_takes_a_warm_sandbox_which_is_then_marked_as_its_own(place: Place) -> None:
    ssh = place.user(place.gateway(profile={"warm": 2, "limits": {"max_lifetime": "1h"}}))
    before = names(place.filled(2))
    assert all("activeDeadlineSeconds" not in pod["spec"] for pod in place.ready()), "a warm pod must not age"
    with staying(ssh):
        (taken,) = place.pods(labels.CLAIMED)
        assert taken["metadata"]["name"] not in names(place.filled(2)), "the pool is full again while it is in use"
    assert taken["metadata"]["name"] in before
    assert mark(taken, labels.USER) == labels.user_hash("dev")
    assert note(taken, labels.USER) == "dev"
    assert mark(taken, labels.SESSION)
    claimed, expires = (
        labels.parse_timestamp(note(taken, key)) or 0.0 for key in (labels.CLAIMED_AT, labels.EXPIRES_AT)
    )
    assert 3599 < expires - claimed < 3601
    assert 3600 < taken["spec"]["activeDeadlineSeconds"] < 3600 + labels.KUBELET_GRACE + 120
    until(lambda: not place.pods(labels.CLAIMED), 10, "the end of the sandbox")
    assert len(place.filled(2)) == 2


def test_programs_in_a_warm_sandbox_have_their_terminal_size_environment_and_status(place: Place) -> None:
    """All that a parked launcher must not get wrong: it was started before anybody asked."""
    gateway = place.gateway(profile={"warm": 4, "image": IMAGE, "shell": "/bin/bash"})
    ssh = place.user(gateway)
    place.filled(4)
    until(lambda: _parked(place) == 12, 20, "three launchers in each of four sandboxes")
    output = ssh.run("stty size; echo $LANG; tty; exit 7", options=("-tt", "-o", "SetEnv=LANG=C.UTF-8"), stdin=None)
    assert output.status == 7
    assert b"C.UTF-8" in output.out
    assert b"/dev/pts/" in output.out
    assert ssh.run("cat; echo end >&2; exit 3", stdin=b"x" * 300_000) == (type(output)(3, b"x" * 300_000, b"end\n")), (
        "bytes, stderr apart, status"
    )
    gone = "until [ $(grep -lz '[_]_l' /proc/[0-9]*/cmdline 2>/dev/null | wc -l) = %d ]; do sleep 0.1; done"
    assert ssh.run(gone % 0, options=("-tt",)).status == 0, "the launcher for pipes has gone"
    assert ssh.run(gone % 1).status == 0, "the launcher with a terminal has gone; the other is the program's parent"
    assert gateway.log().count('"how": "warm"') == 4


def test_a_verb_costs_no_warm_sandbox(place: Place) -> None:
    gateway = place.gateway(profile={"warm": 2})
    before = names(place.filled(2))
    for _ in range(3):
        assert place.user(gateway).run("sandboxes", options=("-s",)).out == b"you have no sandboxes.\n"
    assert names(place.filled(2)) == before
    assert place.user(gateway).run("echo in", options=("-tt",)).status == 0, "a terminal still gets one of them"
    assert len(names(place.filled(2)) & before) == 1


def test_what_was_claimed_ahead_is_not_counted_beside_a_named_sandbox(place: Place) -> None:
    """The terminal is asked for first, the name comes after it."""
    gateway = place.gateway(profile={"warm": 1}, limits={"sandboxes_per_user": 1})
    ssh = place.user(gateway)
    named = ("-tt", "-o", "SetEnv=SSHGATE_NAME=work")
    place.filled(1)
    made = ssh.run("echo in", options=named)
    assert (made.status, made.out) == (0, b"in\r\n"), made.both
    until(lambda: len(place.pods(labels.CLAIMED)) == 1, 20, "the named one alone")
    place.filled(1)
    assert ssh.run("echo again", options=named).out == b"again\r\n"
    until(lambda: len(place.pods(labels.CLAIMED)) == 1, 20, "the named one alone")
    assert ssh.as_user("dev=work").run("end", options=("-s",)).status == 0


def test_a_pool_of_nothing_starts_cold_and_an_empty_pool_does_too(place: Place) -> None:
    gateway = place.gateway(profile={"warm": 0})
    assert place.user(gateway).run("echo in").out == b"in\n"
    assert place.pods(labels.WARM) == []
    gateway.stop()
    smaller = place.gateway("two", profile={"warm": 1})
    place.filled(1)
    with ThreadPoolExecutor(3) as logins:
        ended = [logins.submit(place.user(smaller).run, "echo in") for _ in range(3)]
    assert [one.result().out for one in ended] == [b"in\n"] * 3


def test_a_scanner_takes_nothing_and_a_claim_nobody_uses_is_given_up(place: Place) -> None:
    gateway = place.gateway(profile={"warm": 1})
    before = names(place.filled(1))
    stranger = place.user(gateway, "nobody")
    assert stranger.run("true").status == 255
    assert names(place.pods()) == before, "nothing is claimed before authentication has succeeded"
    listed = place.user(gateway).run("sandboxes", options=("-s",))
    assert listed.status in (0, 255)
    until(lambda: not place.pods(labels.CLAIMED), 10, "nothing left claimed by a verb")
    place.filled(1)


def test_an_edited_profile_is_never_served_stale(place: Place) -> None:
    """As a restart with another file: the pool of the old one is there, and is not handed out."""
    old = place.gateway(profile={"warm": 3})
    before = {mark(pod, labels.TEMPLATE) for pod in place.filled(3)}
    old.kill()
    changed = {"env": [{"name": "TEMPLATE", "value": "new"}], "name": "shell"}
    new = place.gateway("two", profile={"warm": 3, "pod_overrides": {"containers": [changed]}})
    with ThreadPoolExecutor(4) as logins:
        ended = [logins.submit(place.user(new).run, "echo $TEMPLATE") for _ in range(8)]
    assert {(one.result().status, one.result().out) for one in ended} == {(0, b"new\n")}
    assert len(before) == 1
    until(lambda: not before & {mark(pod, labels.TEMPLATE) for pod in place.pods()}, 60, "the old ones being replaced")
    assert len({mark(pod, labels.TEMPLATE) for pod in place.filled(3)}) == 1


def test_a_pool_whose_image_is_missing_is_held_and_a_login_gets_the_reason(place: Place) -> None:
    gateway = place.gateway(profile={"warm": 2, "image": "no-such-image:1"})
    until(lambda: "ErrImageNeverPull" in gateway.log(), 30, "the operator being told")
    before = {pod["metadata"]["uid"] for pod in place.pods(labels.WARM)}
    output = place.user(gateway).run("true")
    assert output.status == 255
    assert b"'no-such-image:1' is not on the node" in output.err
    assert {pod["metadata"]["uid"] for pod in place.pods(labels.WARM)} == before, "held, not made again and again"
    assert gateway.log().count("pool.held") == 1, "told once"


def test_warm_sandboxes_give_way_to_logins_under_the_limit(place: Place) -> None:
    limits = {"sandboxes": 2, "sandboxes_per_user": 3}
    ssh = place.user(place.gateway(profile={"warm": 2, "scope": "channel"}, limits=limits))
    place.filled(2)
    with staying(ssh, ssh):
        until(lambda: not place.pods(labels.WARM), 10, "the limit being kept")
        began = time.monotonic()
        third = ssh.run("true")
        assert time.monotonic() - began < EVICTION_SECONDS
        assert (third.status, third.err) == (
            255,
            (
                b"sshgate: all 2 sandboxes are in use; try again later, or ask your operator for more "
                b"(limits.sandboxes).\n"
            ),
        )
    place.filled(2)


def test_a_full_quota_is_reported_at_once_and_warm_sandboxes_leave_it_to_logins(place: Place) -> None:
    place.space.apply(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "pods"},
            "spec": {"hard": {"pods": "2"}},
        }
    )
    gateway = place.gateway(
        profile={"warm": 1}, profiles={"other": {"extends": "default", "warm": 0, "shell": "/bin/sh"}}
    )
    place.filled(1)
    other = place.user(gateway, "dev+other")
    with staying(other, other):  # the warm one has made room
        until(lambda: "pool.refused" in gateway.log(), 20, "the operator being told")
        began = time.monotonic()
        third = other.run("true")
        assert time.monotonic() - began < EVICTION_SECONDS
        assert third.status == 255
        assert b"the cluster's quota 'pods' is full" in third.err
        assert len(place.pods(labels.CLAIMED)) == 2
    place.filled(1)


def test_a_gateway_that_starts_again_goes_on_with_the_pool_it_left(place: Place) -> None:
    first = place.gateway(profile={"warm": 2})
    before = names(place.filled(2))
    with staying(place.user(first)):
        place.filled(2)
        (orphan,) = names(place.pods(labels.CLAIMED))
        first.kill()
    first.start()
    until(lambda: orphan not in names(place.pods()), 15, "the end of the sandbox of the life before")
    assert orphan in before
    place.filled(2)
    assert place.user(first).run("echo in").out == b"in\n"
    assert '"how": "warm"' in first.log().splitlines()[-1] or first.log().count('"how": "warm"') == 2


def test_gateways_that_stop_at_once_leave_no_pool_behind_and_one_that_stays_keeps_it(place: Place) -> None:
    gateways = [place.gateway(name, profile={"warm": 2}) for name in ("one", "two", "three")]
    before = names(place.filled(2))
    gateways[0].stop()
    assert names(place.filled(2)) == before
    for gateway in gateways[1:]:
        assert gateway.process is not None
        gateway.process.terminate()
    # A second TERM to one that has just ended would be what ends its interpreter.
    assert [gateway.process and gateway.process.wait(STOP_LIMIT) for gateway in gateways[1:]] == [0, 0]
    assert place.pods() == []


def _parked(place: Place) -> int:
    """Launchers that wait in the warm sandboxes, as the sandboxes themselves tell."""
    count = 0
    for pod in place.ready():
        script = "grep -lz '[_]_l' /proc/[0-9]*/cmdline 2>/dev/null | wc -l"
        report = place.space.kubectl("exec", pod["metadata"]["name"], "--", "/bin/sh", "-c", script)
        count += int(report.strip() or 0)  # an exec that ends at once sometimes prints nothing
    return count


WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
# Nothing listens there: the API server answers each creation in the namespace with 500.
DOWN = {"clientConfig": {"url": "https://127.0.0.1:1/"}, "failurePolicy": "Fail", "timeoutSeconds": 1}


def test_a_webhook_that_is_down_is_asked_ever_less_often_and_the_pool_fills_once_it_is_gone(place: Place) -> None:
    health = free_port()
    name = f"{place.space.name}.example.org"
    named = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}}
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    only = {"matchLabels": {"kubernetes.io/metadata.name": place.space.name}}
    hook = {**DOWN, "name": "down.example.org", "sideEffects": "None", "admissionReviewVersions": ["v1"]}
    ask("POST", WEBHOOKS, {**named, "webhooks": [{**hook, "rules": [rule], "namespaceSelector": only}]})
    try:
        until(lambda: _refuses_pods(place), 30, "the webhook being called")
        gateway = place.gateway(profile={"warm": 4}, telemetry={"listen": f"127.0.0.1:{health}"})
        time.sleep(15)  # in which each of the four was requested every second
        assert 2 <= Scraped(health).total("sshgate_api_requests_total", verb="create", outcome="unavailable") <= 10
        assert gateway.log().count('"the API server failed (HTTP 500)') == 1
    finally:
        ask("DELETE", f"{WEBHOOKS}/{name}")
    place.filled(4)


def _refuses_pods(place: Place) -> bool:
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    safe = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
    containers = [{"name": "a", "image": "a", "securityContext": security}]
    manifest = {"metadata": {"name": "a"}, "spec": {"securityContext": safe, "containers": containers}}
    try:
        ask("POST", f"/api/v1/namespaces/{place.space.name}/pods?dryRun=All", manifest)
    except Refused as refused:
        return "failed calling webhook" in str(refused)
    return False
