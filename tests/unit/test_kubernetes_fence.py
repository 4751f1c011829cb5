"""When programs wait for the network policy, and what is learned from whose pods."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from sshgate.config.model import Profile
from sshgate.errors import GateError, StartFailed
from sshgate.lifecycle import schema as labels
from sshgate.providers.kubernetes.api.objects import Pod
from sshgate.providers.kubernetes.deletion import nothing_to_remove
from sshgate.providers.kubernetes.fence import (
    AGAIN,
    BRIEF_SECONDS,
    CONFIRMED,
    ENFORCED_SECONDS,
    FIRST_SECONDS,
    Fence,
    PodFence,
)
from sshgate.providers.kubernetes.sandbox import KubernetesSandbox
from sshgate.sandbox.probe import Probe, Verdict
from sshgate.sandbox.side_execs import ExecLimits
from tests.unit.apiserver import connected, pod, serve, status

CLOSES = {"policyTypes": ["Ingress", "Egress"], "egress": [{"to": []}]}
ONE, OTHER = Profile(name="one"), Profile(name="other")
FIRST, BRIEF, ENFORCED = (Probe("", "", seconds) for seconds in (FIRST_SECONDS, BRIEF_SECONDS, ENFORCED_SECONDS))
WARM = {"labels": {labels.STATE: labels.WARM}, "annotations": {labels.INSTANCE: "elsewhere"}}


def claimed(instance: str = "here", **notes: str) -> dict[str, Any]:
    return {"labels": {labels.STATE: labels.CLAIMED}, "annotations": {labels.INSTANCE: instance, **notes}}


class Namespace:
    """The policies of the namespace, which the gateway may not list if they are ``None``; and its pods, on demand."""

    def __init__(self, *specs: dict[str, Any]) -> None:
        self.specs: list[dict[str, Any]] | None = list(specs)
        self.metadata: dict[str, Any] = claimed()
        """Of each pod that is read."""
        self.reads = 0
        self.pods = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if "/pods/" in request.path:
            self.reads += 1
            found = pod(request.path.rpartition("/")[2])
            return web.json_response(found | {"metadata": found["metadata"] | self.metadata})
        assert request.path.startswith("/apis/networking.k8s.io/v1/namespaces/")
        if self.specs is None:
            return status(403, "Forbidden")
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": [{"spec": one} for one in self.specs]})

    def pod(self) -> Pod:
        self.pods += 1
        return msgspec.convert(pod(f"p{self.pods}"), Pod)


@asynccontextmanager
async def fenced(directory: Path, space: Namespace, setting: str = "auto") -> AsyncIterator[Fence]:
    async with serve(space.answer, directory) as served, connected(served) as api:
        fence = Fence(api, setting, "here")
        await fence.start()
        yield fence
        await fence.close()


async def find(
    fence: Fence, space: Namespace, verdict: Verdict, profile: Profile = ONE, new: bool = True, parked: bool = False
) -> tuple[Probe | None, PodFence]:
    """A launcher in another pod looks, as far as it has to, and finds this."""
    one = fence.of(space.pod(), profile, new)
    probe = one.probe(parked)
    if probe is not None:
        await one.judge(verdict)
        assert one.stands == (verdict is not Verdict.OPEN)
    return probe, one


async def confirm(fence: Fence, space: Namespace) -> None:
    """Several new pods are found closed, a minute apart."""
    for _ in range(CONFIRMED):
        await find(fence, space, Verdict.CLOSED)
        fence._found["one"].at -= AGAIN


NONE = {"podSelector": {"matchLabels": {labels.NETWORK: "none"}}, "policyTypes": ["Egress"]}


@pytest.mark.parametrize("specs", [(), ({"policyTypes": ["Ingress"]},), (NONE,)])
async def test_without_a_policy_for_what_goes_out_nothing_waits(specs: Any, tmp_path: Path) -> None:
    space = Namespace(*specs)
    async with fenced(tmp_path, space) as fence:
        assert (await find(fence, space, Verdict.OPEN))[0] is None


@pytest.mark.parametrize("specs", [(CLOSES,), ({"egress": [{"to": []}]},), None])
async def test_where_a_policy_may_be_a_launcher_looks(specs: Any, tmp_path: Path) -> None:
    space = Namespace(*(specs or ()))
    space.specs = list(specs) if specs else None
    async with fenced(tmp_path, space) as fence:
        assert (await find(fence, space, Verdict.CLOSED))[0] == FIRST


async def test_once_confirmed_a_pod_that_stays_open_is_an_error(tmp_path: Path) -> None:
    space = Namespace(CLOSES)
    async with fenced(tmp_path, space) as fence:
        await confirm(fence, space)
        assert fence.probe("one", parked=False, new=True) == ENFORCED
        for new in (True, False):
            with pytest.raises(StartFailed, match="not in force"):
                await find(fence, space, Verdict.OPEN, new=new)
        space.specs = []  # unless the policy has been deleted
        await find(fence, space, Verdict.OPEN)
        assert fence.probe("one", parked=False, new=True) is None


async def test_one_wrong_closed_refuses_nobody_and_is_forgotten(tmp_path: Path) -> None:
    """Without an engine: the launchers' connections all led to a server that was down."""
    space = Namespace(CLOSES)
    async with fenced(tmp_path, space) as fence:
        for _ in range(2 * CONFIRMED):  # at the same moment: this counts once
            await find(fence, space, Verdict.CLOSED)
        assert (await find(fence, space, Verdict.OPEN))[0] == FIRST
        assert (await find(fence, space, Verdict.OPEN))[0] is None
        assert space.reads == 2, "only what is news is checked"


async def test_where_policies_are_not_enforced_only_the_first_waits(tmp_path: Path) -> None:
    space = Namespace(CLOSES)
    async with fenced(tmp_path, space) as fence:
        assert (await find(fence, space, Verdict.OPEN))[0] == FIRST
        assert fence.probe("one", parked=False, new=True) is None
        assert fence.probe("other", parked=False, new=True) == FIRST, "a policy may select the pods of a profile"


@pytest.mark.parametrize(("parked", "probe"), [(True, FIRST), (False, BRIEF)])
async def test_an_engine_that_comes_up_late_is_found(parked: bool, probe: Probe, tmp_path: Path) -> None:
    space = Namespace(CLOSES)
    async with fenced(tmp_path, space) as fence:
        await find(fence, space, Verdict.OPEN)
        assert (await find(fence, space, Verdict.CLOSED, parked=parked))[0] is None
        fence._found["one"].at -= AGAIN
        assert (await find(fence, space, Verdict.CLOSED, new=False))[0] is None
        assert (await find(fence, space, Verdict.OPEN, parked=parked))[0] == probe
        assert (await find(fence, space, Verdict.CLOSED, parked=parked))[0] is None, "one of them looks, once a minute"
        fence._found["one"].at -= AGAIN
        assert (await find(fence, space, Verdict.CLOSED, parked=parked))[0] == probe
        assert fence.probe("one", parked=False, new=True) == FIRST


@pytest.mark.parametrize("verdict", [Verdict.OPEN, Verdict.CLOSED])
@pytest.mark.parametrize(
    "metadata",
    [
        claimed("elsewhere"),
        claimed(**{labels.ATTACHED + "elsewhere": "2026-01-01T00:00:00Z"}),
        claimed(**{labels.DETACHED_AT: "2026-01-01T00:00:00Z"}),
        WARM | {"uid": "another"},
    ],
)
async def test_a_pod_that_another_gateway_may_have_used_teaches_nothing(
    metadata: dict[str, Any], verdict: Verdict, tmp_path: Path
) -> None:
    space = Namespace(CLOSES)
    async with fenced(tmp_path, space) as fence:
        space.metadata = metadata
        await find(fence, space, verdict)
        assert fence.probe("one", parked=False, new=False) == BRIEF, "nothing is known yet"
        space.metadata = WARM
        await find(fence, space, verdict)
        assert fence.probe("one", parked=False, new=False) == (FIRST if verdict is Verdict.CLOSED else None)


@pytest.mark.parametrize("verdict", [Verdict.OPEN, Verdict.CLOSED])
async def test_what_is_found_where_users_have_programs_concerns_no_other_pod(verdict: Verdict, tmp_path: Path) -> None:
    space = Namespace(CLOSES)
    async with fenced(tmp_path, space) as fence:
        assert (await find(fence, space, verdict, new=False))[0] == BRIEF
        assert (await find(fence, space, verdict, new=False))[0] == BRIEF
        assert space.reads == 0


async def test_a_pod_is_looked_at_until_a_program_was_let_in(tmp_path: Path) -> None:
    space = Namespace(CLOSES)
    async with fenced(tmp_path, space) as fence:
        one = fence.of(pod_ := space.pod(), ONE, new=False)
        assert one.probe(parked=False) == BRIEF
        await one.judge(Verdict.OPEN)
        # Its user leaves, and comes back.
        assert fence.of(pod_, ONE, new=False).probe(parked=False) is None
        fence.forget(pod_.metadata.uid)
        assert fence.of(pod_, ONE, new=False).probe(parked=False) == BRIEF
        # Where only launchers have been, a program that comes after them needs the proof.
        warm = fence.of(space.pod(), ONE, new=False)
        assert warm.probe(parked=True) == BRIEF
        await warm.judge(Verdict.OPEN)
        assert warm.probe(parked=False) == BRIEF


async def test_a_pod_that_was_entered_without_a_look_is_not_new_any_more(tmp_path: Path) -> None:
    space = Namespace()
    async with fenced(tmp_path, space) as fence:
        one = fence.of(space.pod(), ONE, new=True)
        assert one.probe(parked=True) is None
        space.specs = [CLOSES]
        await fence._look()
        assert one.probe(parked=False) is not None
        await one.judge(Verdict.OPEN)
        assert fence.probe("one", parked=False, new=True) == FIRST


async def test_a_configured_address_is_always_waited_for(tmp_path: Path) -> None:
    space = Namespace()
    async with fenced(tmp_path, space, "[fd00::1]:443") as fence:
        one = fence.of(space.pod(), OTHER, new=True)
        assert one.probe(parked=False) == Probe("fd00::1", "443", ENFORCED_SECONDS)
        with pytest.raises(StartFailed):
            await find(fence, space, Verdict.OPEN)
    space = Namespace(CLOSES)
    async with fenced(tmp_path, space, "off") as fence:
        assert (await find(fence, space, Verdict.OPEN))[0] is None


ALL = {"policyTypes": ["Egress"], "egress": [{"ports": [{"port": 443}]}]}
OTHERS = ALL | {"podSelector": {"matchExpressions": [{"key": labels.NETWORK, "operator": "NotIn", "values": ["none"]}]}}
THEIRS = {"podSelector": {"matchLabels": {labels.NETWORK: "none"}}, "policyTypes": ["Ingress", "Egress"]}


@pytest.mark.parametrize("setting", ["auto", "off", "[fd00::1]:443"])
@pytest.mark.parametrize(
    ("specs", "open_"),
    [
        ([OTHERS, THEIRS], False),
        ([{"policyTypes": ["Egress"]}], False),
        (None, False),
        ([ALL, THEIRS], True),
        ([OTHERS], True),
        ([], True),
        ([OTHERS, THEIRS | {"policyTypes": ["Ingress"]}], True),
    ],
)
async def test_policies_that_let_a_pod_without_a_network_out_are_warned_of(
    specs: list[dict[str, Any]] | None, open_: bool, setting: str, tmp_path: Path
) -> None:
    """As after an update of the gateway without its manifests."""
    space = Namespace()
    space.specs = specs
    async with fenced(tmp_path, space, setting) as fence:
        made = space.pod()
        made.metadata.labels[labels.NETWORK] = "none"
        with capture_logs() as logged:
            fence.of(made, Profile(name="none", network="none"), new=True)
            fence.of(made, Profile(name="none", network="none"), new=True)
            fence.of(space.pod(), ONE, new=True)
        assert [line["event"] for line in logged] == ["network.open"] * open_


async def test_where_the_image_cannot_look_the_first_program_waits_for_the_time_to_settle(tmp_path: Path) -> None:
    space = Namespace(CLOSES)
    async with fenced(tmp_path, space) as fence:
        _, one = await find(fence, space, Verdict.BLIND, Profile(name="one", settle=0.0))
        assert one.probe(parked=False) is None, "it has settled"
        assert space.reads == 0
        assert fence.probe("one", parked=False, new=False) == BRIEF


async def test_a_sandbox_is_unused_until_a_program_may_start(tmp_path: Path) -> None:
    """So that a named one that was made and refused is deleted."""
    space = Namespace(CLOSES)
    async with serve(space.answer, tmp_path) as served, connected(served) as api:
        fence = Fence(api, "auto", "here")
        await fence.start()
        await confirm(fence, space)
        made = space.pod()
        one = fence.of(made, ONE, new=True)
        sandbox = KubernetesSandbox(api, made, ONE, lambda _: nothing_to_remove(), ExecLimits(), "ada", fence=one)
        assert sandbox.probe(parked=False) is not None
        sandbox._entered = True
        with pytest.raises(GateError):  # this server has no execs
            await sandbox.start(("/bin/sh",), None)
        with pytest.raises(StartFailed, match="not in force"):
            await sandbox.judge(Verdict.OPEN)
        assert not sandbox.used
        await sandbox.judge(Verdict.CLOSED)
        assert sandbox.used
        await fence.close()
