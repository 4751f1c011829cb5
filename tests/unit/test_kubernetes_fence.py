"""When programs wait for the network policy, and what is learned from whose pods."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from sshgate.config.model import Profile
from sshgate.errors import StartFailed
from sshgate.providers.kubernetes.fence import AGAIN, ENFORCED_SECONDS, FIRST_SECONDS, Fence
from sshgate.sandbox.probe import Probe, Verdict
from tests.unit.apiserver import connected, serve, status

CLOSES = {"policyTypes": ["Ingress", "Egress"], "egress": [{"to": []}]}
ONE, OTHER = Profile(name="one"), Profile(name="other")


class Policies:
    """The policies of the namespace; ``None``: the gateway may not list them."""

    def __init__(self, *specs: dict[str, Any]) -> None:
        self.specs: list[dict[str, Any]] | None = list(specs)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        assert request.path.startswith("/apis/networking.k8s.io/v1/namespaces/")
        if self.specs is None:
            return status(403, "Forbidden")
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": [{"spec": one} for one in self.specs]})


@asynccontextmanager
async def fenced(directory: Path, policies: Policies, setting: str = "auto") -> AsyncIterator[Fence]:
    async with serve(policies.answer, directory) as served, connected(served) as api:
        fence = Fence(api, setting)
        await fence.start()
        yield fence
        await fence.close()


async def find(fence: Fence, verdict: Verdict, profile: Profile = ONE, new: bool = True) -> Probe | None:
    """A launcher in a pod looks, as far as it has to, and finds this."""
    pod = fence.of(profile, new)
    probe = pod.probe(parked=False)
    if probe is not None:
        await pod.judge(verdict)
        assert pod.stands == (verdict is Verdict.CLOSED)
        assert (pod.probe(parked=False) is None) == (pod.stands or fence.probe(profile.name, False) is None)
    return probe


@pytest.mark.parametrize("specs", [(), ({"policyTypes": ["Ingress"]},)])
async def test_without_a_policy_for_what_goes_out_nothing_waits(specs: Any, tmp_path: Path) -> None:
    async with fenced(tmp_path, Policies(*specs)) as fence:
        assert await find(fence, Verdict.OPEN) is None


@pytest.mark.parametrize("specs", [(CLOSES,), ({"egress": [{"to": []}]},), None])
async def test_where_a_policy_may_be_a_launcher_looks(specs: Any, tmp_path: Path) -> None:
    policies = Policies(*(specs or ()))
    policies.specs = list(specs) if specs else None
    async with fenced(tmp_path, policies) as fence:
        assert await find(fence, Verdict.CLOSED) == Probe("", "", FIRST_SECONDS)


async def test_once_closed_a_pod_that_stays_open_is_an_error(tmp_path: Path) -> None:
    policies = Policies(CLOSES)
    async with fenced(tmp_path, policies) as fence:
        await find(fence, Verdict.CLOSED)
        assert fence.probe("one", parked=False) == Probe("", "", ENFORCED_SECONDS)
        for new in (True, False):
            with pytest.raises(StartFailed, match="not in force"):
                await find(fence, Verdict.OPEN, new=new)
        policies.specs = []  # unless the policy has been deleted
        await find(fence, Verdict.OPEN)
        assert fence.probe("one", parked=False) is None


async def test_where_policies_are_not_enforced_only_the_first_waits(tmp_path: Path) -> None:
    async with fenced(tmp_path, Policies(CLOSES)) as fence:
        assert await find(fence, Verdict.OPEN) is not None
        assert fence.probe("one", parked=False) is None
        assert fence.probe("other", parked=False) is not None, "a policy may select the pods of a profile"
        # A parked launcher looks now and then, and what it finds counts.
        assert fence.probe("one", parked=True) is None
        fence._looked["one"] -= AGAIN
        pod = fence.of(ONE, new=True)
        assert pod.probe(parked=True) is not None
        assert fence.probe("one", parked=True) is None
        await pod.judge(Verdict.CLOSED)
        assert fence.probe("one", parked=False) is not None


@pytest.mark.parametrize("verdict", [Verdict.OPEN, Verdict.CLOSED])
async def test_what_is_found_where_users_have_programs_concerns_no_other_pod(verdict: Verdict, tmp_path: Path) -> None:
    async with fenced(tmp_path, Policies(CLOSES)) as fence:
        before = fence.probe("one", parked=False)
        await find(fence, verdict, new=False)
        assert fence.probe("one", parked=False) == before
        assert "one" not in fence._enforced


async def test_a_pod_that_was_entered_without_a_look_is_not_new_any_more(tmp_path: Path) -> None:
    policies = Policies()
    async with fenced(tmp_path, policies) as fence:
        pod = fence.of(ONE, new=True)
        assert pod.probe(parked=True) is None
        policies.specs = [CLOSES]
        await fence._look()
        assert pod.probe(parked=False) is not None
        await pod.judge(Verdict.OPEN)
        assert "one" not in fence._enforced


async def test_a_configured_address_is_always_waited_for(tmp_path: Path) -> None:
    async with fenced(tmp_path, Policies(), "[fd00::1]:443") as fence:
        assert fence.of(OTHER, new=True).probe(parked=False) == Probe("fd00::1", "443", ENFORCED_SECONDS)
        with pytest.raises(StartFailed):
            await find(fence, Verdict.OPEN)
    async with fenced(tmp_path, Policies(CLOSES), "off") as fence:
        assert await find(fence, Verdict.OPEN) is None


async def test_where_the_image_cannot_look_programs_wait_for_the_time_to_settle(tmp_path: Path) -> None:
    async with fenced(tmp_path, Policies(CLOSES)) as fence:
        await find(fence, Verdict.BLIND, Profile(name="one", settle=0.0))
        assert "one" not in fence._enforced
