"""What gateways tell each other and make for nobody yet, through answers that make no sense and profiles that go."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from sshgate.config.model import Limits, Profile
from sshgate.errors import StartFailed, Unavailable
from sshgate.lifecycle.registry import Registry
from sshgate.lifecycle.requests import Create
from sshgate.providers.kubernetes.api.errors import Conflict
from sshgate.providers.kubernetes.heartbeat import Heartbeat
from sshgate.providers.kubernetes.installation import find_anchor
from sshgate.providers.kubernetes.lease_thread import LeaseRenewer
from sshgate.providers.kubernetes.leases import Leases
from sshgate.providers.kubernetes.liveness import LivenessEndpoint
from sshgate.providers.kubernetes.pods import Pods
from sshgate.providers.kubernetes.podspec import Owner
from tests.hostile.polling import until
from tests.unit.apiserver import connected, serve, status
from tests.unit.lifecycle_values import at

OWNER = Owner("gateway", "life")


@pytest.mark.timeout(60)
async def test_a_gateway_goes_on_renewing_after_an_answer_that_makes_no_sense(tmp_path: Path) -> None:
    answers: list[Any] = []
    renewed: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "PATCH":
            renewed.append(request.path)
        if request.method == "GET" and len(renewed) == 1:
            answers.append("nonsense")
            return web.json_response({"metadata": {}, "items": "nonsense"})
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": []})

    async with serve(answer, tmp_path) as served, connected(served) as api:
        loop = asyncio.get_running_loop()
        registry = Registry("life", Limits(), Pods(api, OWNER, {}), lambda: at(loop.time()))
        heartbeat = Heartbeat(Leases(api, OWNER), registry, LeaseRenewer(api, OWNER))
        await heartbeat.start()
        await until(lambda: len(renewed) >= 2, 40)
        assert answers
        await heartbeat.close()


async def test_a_lease_that_was_made_by_a_request_without_an_answer_is_ours(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return status(409, "AlreadyExists", 'leases "sshgate-life-life" already exists')

    async with serve(answer, tmp_path) as served, connected(served) as api:
        await Leases(api, OWNER).announce(LivenessEndpoint("key"))
        with pytest.raises(Conflict):
            await Leases(api, OWNER).lead(None)


async def test_a_gateway_whose_lease_is_gone_looks_again_who_owns_what_it_makes(tmp_path: Path) -> None:
    """The garbage collector takes the Lease with the installation's object, and whatever names that by its old uid."""
    anchor: dict[str, str] | None = {"name": "sshgate-anchor", "uid": "old"}
    made: list[Any] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/configmaps/sshgate-anchor") and anchor is not None:
            return web.json_response({"metadata": anchor})
        if request.method != "POST":
            return status(404, "NotFound")
        made.append((await request.json())["metadata"].get("ownerReferences"))
        return web.json_response({}, status=201)

    async with serve(answer, tmp_path) as served, connected(served) as api:
        await find_anchor(api)
        twin = api.for_other_loop()
        await twin.open()
        leases = Leases(twin, OWNER)
        await leases.announce(LivenessEndpoint("key"))
        anchor = {"name": "sshgate-anchor", "uid": "new"}
        await leases.renew(LivenessEndpoint("key"))
        assert [[owner["uid"] for owner in owners] for owners in made] == [["old"], ["new"]]
        assert api.owner_metadata()["ownerReferences"][0]["uid"] == "new"
        anchor = None
        await leases.renew(LivenessEndpoint("key"))
        assert made[2] is None
        await twin.close()


async def test_a_profile_that_goes_while_a_creation_waits_is_a_refusal_and_no_fault(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        raise AssertionError(request.path)

    async with serve(answer, tmp_path) as served, connected(served) as api:
        pods = Pods(api, OWNER, {"other": Profile()})
        with pytest.raises(StartFailed, match="'default' is no longer configured"):
            await pods.make(Create("warm-1", "default", "t1"))
        assert pods.unsure == set()


async def test_a_creation_without_an_answer_is_remembered_until_it_is_seen(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=503)

    async with serve(answer, tmp_path) as served, connected(served) as api:
        pods = Pods(api, OWNER, {"default": Profile()})
        with pytest.raises(Unavailable):
            await pods.make(Create("warm-1", "default", "t1"))
        assert pods.unsure == {"warm-1"}
