"""Named sandboxes against an API server that refuses, or whose pods change at the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import web

from sshgate.config.model import Home, Limits, Profile
from sshgate.errors import LimitReached, StartFailed, Unavailable
from sshgate.lifecycle import schema as labels
from sshgate.lifecycle.registry import Registry
from sshgate.providers.kubernetes.allocator import PodAllocator
from sshgate.providers.kubernetes.deletion import PodDeleter
from sshgate.providers.kubernetes.exec.process import ExecProcess
from sshgate.providers.kubernetes.fence import Fence
from sshgate.providers.kubernetes.homes import KubernetesHomes
from sshgate.providers.kubernetes.named import KubernetesNamed
from sshgate.providers.kubernetes.pods import Pods
from sshgate.providers.kubernetes.podspec import Owner
from sshgate.providers.kubernetes.sandbox import KubernetesSandbox
from sshgate.sandbox.interfaces import Kind, Order
from sshgate.sandbox.side_execs import ExecLimits
from sshgate.stream.interfaces import Exited
from tests.hostile.polling import until
from tests.rig.ends import TestProcess
from tests.unit.apiserver import Served, connected, serve, status
from tests.unit.lifecycle_values import at, claimed
from tests.unit.test_kubernetes_homes import Claims

NAME = labels.named_pod("ada", "work")


class Kept:
    """The pods of a namespace. No patch is accepted while ``refusal`` is set."""

    def __init__(self) -> None:
        self.pods: dict[str, dict[str, Any]] = {}
        self.made = 0
        self.leases: dict[str, dict[str, Any]] = {}
        self.refusal: int | None = None
        self.looked: Callable[[], None] = lambda: None
        self.ends = False
        """Whether the next pod that a gateway attaches to ends at once."""
        self.silent = 0
        """Requests, other than to create, that are not carried out."""
        self.creating: asyncio.Event | None = None
        """Creations are carried out and not answered before it is set."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        name = request.path.rpartition("/")[2]
        if "/leases" in request.path:
            return await self._of_a_lease(request)
        if request.method == "POST":
            pod = await request.json()
            if pod["metadata"]["name"] in self.pods:
                return status(409, "AlreadyExists")
            pod["metadata"] |= {"uid": f"uid-{self.made}", "resourceVersion": "1"}
            self.made += 1
            self.pods[pod["metadata"]["name"]] = pod
            if self.creating is not None:
                await self.creating.wait()
            return web.json_response(pod, status=201)
        self.looked()
        if self.silent:
            self.silent -= 1
            return status(503, "ServiceUnavailable")
        if name not in self.pods:
            return status(404, "NotFound")
        if request.method == "PATCH" and self.refusal is not None:
            return status(self.refusal)
        if request.method == "DELETE":
            return status(409, "Conflict")
        if request.method == "PATCH" and self.ends:
            self.ends = False
            return web.json_response(self.pods.pop(name))
        return web.json_response(self.pods[name])

    async def _of_a_lease(self, request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            wanted = request.query["fieldSelector"].partition("=")[2]
            return web.json_response({"metadata": {}, "items": [self.leases[wanted]] if wanted in self.leases else []})
        name = (
            request.path.rpartition("/")[2]
            if request.method == "DELETE"
            else (await request.json())["metadata"]["name"]
        )
        if request.method == "DELETE":
            del self.leases[name]
            return web.json_response({})
        if name in self.leases:
            return status(409, "AlreadyExists")
        self.leases[name] = lease = await request.json()
        lease["metadata"] |= {"uid": f"lease-{len(self.leases)}", "resourceVersion": "1"}
        return web.json_response(lease, status=201)


@asynccontextmanager
async def gateway(
    kept: Kept, directory: Path, instance: str
) -> AsyncIterator[tuple[KubernetesNamed, Registry, Served]]:
    async with serve(kept.answer, directory) as served, connected(served) as api:
        owner = Owner("gate", instance)
        registry = Registry(instance, Limits(), Pods(api, owner, {}), lambda: at(0))
        homes = KubernetesHomes(api, {}, lambda: at(0), Limits)
        fence = Fence(api, "off", instance)
        allocator = PodAllocator(api, registry, owner, {}, {}, {}, lambda _: None, PodDeleter(api), ExecLimits(), fence)
        named = KubernetesNamed(api, registry, owner, homes, allocator)
        yield named, registry, served
        await named.close(1.0)


def order(session: str) -> Order:
    return Order(user="ada", profile=Profile(), session=session, name="work")


@pytest.mark.parametrize("refusal", [403, 409, 422])
async def test_a_login_that_may_not_join_asks_a_few_times_and_gives_up(tmp_path: Path, refusal: int) -> None:
    kept = Kept()
    async with gateway(kept, tmp_path, "one") as (one, _, _):
        assert (await one.join(order("a"), print, lambda: lambda: None)).made
        kept.refusal = refusal
        async with gateway(kept, tmp_path, "two") as (two, _, served):
            with pytest.raises(StartFailed, match="does not let you into your sandbox 'work'"):
                await two.join(order("b"), print, lambda: lambda: None)
            assert len(served.requests) < 20


async def test_a_pod_that_is_gone_takes_no_newer_one_of_its_name_along(tmp_path: Path) -> None:
    kept = Kept()
    async with gateway(kept, tmp_path, "one") as (named, registry, _):
        newer = claimed("newer", name=NAME, sandbox="work")
        registry.update(claimed("older", name=NAME, sandbox="work"))

        def replace() -> None:
            registry.remove("older")
            registry.update(newer)

        kept.looked = replace  # the watch shows the next pod before the answer arrives
        assert await named.end("ada", "work") is None
        assert registry.cache.named(NAME) == newer


async def test_a_sandbox_that_ends_while_it_is_joined_is_followed_by_a_new_one(tmp_path: Path) -> None:
    """Somebody ends it between this gateway's attachment and its look at the pod."""
    kept = Kept()
    async with gateway(kept, tmp_path, "one") as (one, _, _), gateway(kept, tmp_path, "two") as (two, _, _):
        first = await one.join(order("a"), print, lambda: lambda: None)
        kept.ends = True
        second = await two.join(order("b"), print, lambda: lambda: None)
        assert not kept.ends
        assert second.made
        assert cast(KubernetesSandbox, second.sandbox).uid != cast(KubernetesSandbox, first.sandbox).uid


async def test_a_sandbox_that_ends_while_it_is_looked_for_is_not_found(tmp_path: Path) -> None:
    kept = Kept()
    async with gateway(kept, tmp_path, "one") as (one, _, _), gateway(kept, tmp_path, "two") as (two, _, _):
        await one.join(order("a"), print, lambda: lambda: None)
        looks = 0

        def gone() -> None:
            nonlocal looks
            looks += 1
            if looks == 2:  # after its name has led to it
                kept.pods.clear()

        kept.looked = gone
        assert await two.find(order("b")) is None
        assert looks == 2


async def test_who_could_not_start_waits_for_one_attempt_to_delete(tmp_path: Path) -> None:
    kept = Kept()
    async with gateway(kept, tmp_path, "one") as (named, _, served):
        attached = await named.join(order("a"), print, lambda: lambda: None)
        await attached.sandbox.delete()
        assert served.requests.count(f"DELETE /api/v1/namespaces/test/pods/{NAME}") == 1
        await attached.leave()


async def test_a_login_that_leaves_while_its_pod_is_made_leaves_none(tmp_path: Path) -> None:
    kept = Kept()
    kept.creating = asyncio.Event()
    async with gateway(kept, tmp_path, "one") as (named, _, served):
        joining = asyncio.create_task(named.join(order("a"), print, lambda: lambda: None))
        async with asyncio.timeout(20):
            await until(lambda: NAME in kept.pods, 20)
            joining.cancel()
            with pytest.raises(asyncio.CancelledError):
                await joining
            await until(lambda: f"DELETE /api/v1/namespaces/test/pods/{NAME}" in served.requests, 20)
        kept.creating.set()


class KeptWithHomes(Kept):
    """Volume claims as well. Creating one is carried out, and not answered, or by an error."""

    def __init__(self) -> None:
        super().__init__()
        self.claims = Claims()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if "/persistentvolumeclaims" not in request.path and not request.path.endswith("/pods"):
            return await super().answer(request)
        answer = await self.claims.answer(request)
        if request.method != "POST":
            return answer
        if self.creating is not None:
            await self.creating.wait()
        return status(503, "ServiceUnavailable")


@pytest.mark.parametrize("leaves", [True, False], ids=["that leaves", "without an answer"])
async def test_a_login_whose_home_is_just_being_made_leaves_none(tmp_path: Path, leaves: bool) -> None:
    kept = KeptWithHomes()
    kept.creating = asyncio.Event() if leaves else None
    async with gateway(kept, tmp_path, "one") as (named, _, _), asyncio.timeout(20):
        with_home = replace(order("a"), profile=Profile(home=Home(size="1Gi")))
        joining = asyncio.create_task(named.join(with_home, print, lambda: lambda: None))
        if leaves:
            await until(lambda: kept.claims.kept, 20)
            joining.cancel()
        with pytest.raises((asyncio.CancelledError, Unavailable)):
            await joining
        assert kept.claims.kept
        await until(lambda: not kept.claims.kept, 20)
        if kept.creating is not None:
            kept.creating.set()


async def test_a_login_that_met_a_pod_of_its_name_and_made_its_own_takes_one_start(tmp_path: Path) -> None:
    kept = Kept()
    kept.pods[NAME] = {"metadata": {"name": NAME, "uid": "other", "resourceVersion": "1"}}
    looks = 0

    def gone() -> None:
        nonlocal looks
        looks += 1
        if looks == 2:  # after the creation was refused
            del kept.pods[NAME]

    kept.looked = gone
    async with gateway(kept, tmp_path, "one") as (named, registry, served):
        registry.limit(Limits(starts_per_minute=1))
        assert (await named.join(order("a"), print, lambda: lambda: None)).made
        assert served.requests.count("POST /api/v1/namespaces/test/pods") == 2
        with pytest.raises(LimitReached, match="within a minute"):
            registry.admit("ada", "another")


async def test_a_login_that_is_not_held_leaves_the_exec_that_waits_for_a_held_one(tmp_path: Path) -> None:
    kept = Kept()
    async with gateway(kept, tmp_path, "one") as (named, _, _):
        attached = await named.join(order("a"), print, lambda: lambda: None)
        sandbox, waits, parked = cast(KubernetesSandbox, attached.sandbox), TestProcess(), TestProcess()
        sandbox.used = True
        for kind, process in (("kept", waits), ("pipe", parked)):
            sandbox._processes.add(cast(ExecProcess, process))
            sandbox.leave(cast(Kind, kind), process)
        parked.end(Exited(0))
        await sandbox.forget()  # once its own program runs
        assert parked.closed
        await attached.leave()
        await until(lambda: "1 sandboxes" in repr(named._returning), 20)
        again = await named.join(order("b"), print, lambda: lambda: None)
        assert again.sandbox.parked("kept") is waits
        assert not waits.closed
        sandbox._processes.clear()
        await again.leave()


async def test_a_login_that_cannot_look_at_the_pod_that_it_has_made_leaves_none(tmp_path: Path) -> None:
    kept = Kept()
    kept.silent = 1
    async with gateway(kept, tmp_path, "one") as (named, _, served):
        with pytest.raises(Unavailable):
            await named.join(order("a"), print, lambda: lambda: None)
        await until(lambda: f"DELETE /api/v1/namespaces/test/pods/{NAME}" in served.requests, 20)


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [("labels", labels.SESSION, "another"), ("annotations", labels.DETACHED_AT, labels.timestamp(1.0))],
    ids=["of another login", "left by somebody"],
)
async def test_a_creation_without_an_answer_takes_no_pod_that_is_used(
    tmp_path: Path, kind: str, key: str, value: str
) -> None:
    kept = Kept()
    kept.creating = asyncio.Event()
    async with gateway(kept, tmp_path, "one") as (named, _, served):
        joining = asyncio.create_task(named.join(order("a"), print, lambda: lambda: None))
        async with asyncio.timeout(20):
            await until(lambda: NAME in kept.pods, 20)
            kept.pods[NAME]["metadata"][kind][key] = value
            joining.cancel()
            with pytest.raises(asyncio.CancelledError):
                await joining
            await until(lambda: f"GET /api/v1/namespaces/test/pods/{NAME}" in served.requests, 20)
            await named._detaching.join()
        assert f"DELETE /api/v1/namespaces/test/pods/{NAME}" not in served.requests
        kept.creating.set()


async def test_who_joins_while_a_failed_start_is_given_up_attaches_anew_and_keeps_the_pod(tmp_path: Path) -> None:
    kept = Kept()
    async with gateway(kept, tmp_path, "one") as (named, _, served):
        failed = await named.join(order("a"), print, lambda: lambda: None)
        assert isinstance(failed.sandbox, KubernetesSandbox)
        failed.sandbox.abandon()
        joined, _ = await asyncio.gather(named.join(order("b"), print, lambda: lambda: None), failed.sandbox.delete())
        await failed.leave()
        assert joined.sandbox.usable
        methods = [request.split()[0] for request in served.requests]
        assert "PATCH" in methods
        assert "DELETE" not in methods
