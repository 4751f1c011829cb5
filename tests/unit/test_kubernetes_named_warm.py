"""Named sandboxes that take a warm pod, against an API server that keeps pods and Leases: requests, races, kills."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from sshgate.config.model import Limits, Profile
from sshgate.errors import Unavailable
from sshgate.lifecycle import schema as labels
from sshgate.lifecycle.reap_plan import ORPHAN_SECONDS, orphans
from sshgate.lifecycle.records import Record, State
from sshgate.lifecycle.registry import Registry
from sshgate.providers.kubernetes import podspec
from sshgate.providers.kubernetes.allocator import PodAllocator
from sshgate.providers.kubernetes.deletion import PodDeleter
from sshgate.providers.kubernetes.fence import Fence
from sshgate.providers.kubernetes.homes import KubernetesHomes
from sshgate.providers.kubernetes.named import KubernetesNamed
from sshgate.providers.kubernetes.pods import Pods
from sshgate.providers.kubernetes.podspec import Owner
from sshgate.sandbox.interfaces import Attachment, Order
from sshgate.sandbox.side_execs import ExecLimits
from tests.unit.apiserver import Served, connected, serve, status
from tests.unit.lifecycle_values import at
from tests.unit.modelled_cluster import Cluster, Refused, record_from

PROFILE = Profile(warm=2, settle=0.0)
TEMPLATE = podspec.template_hash(PROFILE)


class Kept:
    """The pods and Leases of a namespace."""

    def __init__(self) -> None:
        self.cluster = Cluster(100)
        self.leases: dict[str, dict[str, Any]] = {}
        self.broken: int | None = None
        """Answer requests for Leases so, after carrying them out."""
        self.taking: asyncio.Event | None = None
        """Creating a Lease waits for this."""
        self.denied = 0
        """Refuse as many patches that write a name, as an admission rule might."""

    def warm(self, name: str) -> Record:
        pod = podspec.warm_pod(PROFILE, Owner("gate", "one"), name)
        self.cluster.create(name, pod["metadata"]["labels"], pod["metadata"]["annotations"])
        for _ in range(2):
            self.cluster.work(name)
        return self.record(name)

    def record(self, name: str) -> Record:
        return record_from(self.cluster.get(name))

    def records(self) -> list[Record]:
        return [self.record(name) for name in self.cluster.pods]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        name = request.path.rpartition("/")[2]
        body = await request.json() if request.can_read_body else {}
        try:
            if "/leases" not in request.path:
                return web.json_response(self._pod(request.method, name, body))
            if request.method == "POST" and self.taking is not None:
                await self.taking.wait()
            done = self._lease(request, name, body)
            return status(self.broken) if self.broken is not None else web.json_response(done)
        except Refused as refused:
            return status(refused.code)

    def _pod(self, method: str, name: str, body: Any) -> dict[str, Any]:
        if method == "POST":
            meta = body["metadata"]
            return self.cluster.create(meta["name"], meta["labels"], meta["annotations"])
        if method == "PATCH":
            if self.denied and any("attached" in one["path"] for one in body):
                self.denied -= 1
                raise Refused(403)
            return self.cluster.patch(name, body)
        if method == "DELETE":
            wanted = body["preconditions"]
            self.cluster.delete(name, wanted["uid"], wanted.get("resourceVersion"))
        return self.cluster.get(name)

    def _lease(self, request: web.Request, name: str, body: Any) -> dict[str, Any]:
        if request.method == "GET":
            wanted = request.query["fieldSelector"].partition("=")[2]
            return {"metadata": {}, "items": [self.leases[wanted]] if wanted in self.leases else []}
        if request.method == "DELETE":
            if self.leases.get(name, {}).get("metadata", {}).get("uid") != body["preconditions"]["uid"]:
                raise Refused(409)
            return self.leases.pop(name)
        if body["metadata"]["name"] in self.leases:
            raise Refused(409)
        body["metadata"] |= {"uid": f"lease-{body['metadata']['ownerReferences'][0]['uid']}", "resourceVersion": "1"}
        self.leases[body["metadata"]["name"]] = body
        return dict(body)

    @property
    def holder(self) -> str:
        (lease,) = self.leases.values()
        uid: str = lease["metadata"]["ownerReferences"][0]["uid"]
        return uid


class Gate:
    """One gateway. Its cache learns of the pods by its own requests, and by ``observe``."""

    def __init__(self, kept: Kept, named: KubernetesNamed, registry: Registry, served: Served) -> None:
        self.kept, self.named, self.registry, self.served = kept, named, registry, served

    def observe(self) -> None:
        self.registry.replace(self.kept.records())

    async def join(self, session: str, profile: Profile = PROFILE) -> Attachment:
        return await self.named.join(Order(profile, "ada", session, "work"), print, lambda: lambda: None)

    def requests(self) -> list[str]:
        """Method and kind of all requests so far."""
        found = [request.split() for request in self.served.requests]
        self.served.requests.clear()
        return [f"{method} {'leases' if '/leases' in path else 'pods'}" for method, path in found]


@asynccontextmanager
async def gateway(kept: Kept, directory: Path, instance: str) -> AsyncIterator[Gate]:
    (directory / instance).mkdir()
    async with serve(kept.answer, directory / instance) as served, connected(served) as api:
        owner = Owner("gate", instance)
        registry = Registry(instance, Limits(), Pods(api, owner, {}), lambda: at(0))
        homes = KubernetesHomes(api, {}, lambda: at(0), Limits)
        deleter, fence = PodDeleter(api), Fence(api, "off", instance)
        allocator = PodAllocator(
            api, registry, owner, {"default": PROFILE}, {"default": TEMPLATE}, {}, lambda _: None, deleter,
            ExecLimits(), fence,
        )  # fmt: skip
        made = Gate(
            kept,
            KubernetesNamed(api, registry, owner, homes, allocator),
            registry,
            served,
        )
        made.observe()
        yield made
        await made.named.close(1.0)
        await deleter.close(1.0)


async def settled() -> None:
    """Until what was begun in the background has answers."""
    await asyncio.sleep(0.3)


async def test_a_warm_login_costs_two_requests_before_its_program_and_two_after(tmp_path: Path) -> None:
    kept = Kept()
    kept.warm("sshgate-warm-a")
    async with gateway(kept, tmp_path, "one") as one:
        attached = await one.join("s1")
        assert (attached.made, attached.sandbox.warm, attached.sandbox.id) == (True, True, "sshgate-warm-a")
        before = one.requests()
        assert [one for one in before if one != "GET pods"] == ["PATCH pods", "POST leases"]
        await settled()
        record = kept.record("sshgate-warm-a")
        assert (record.sandbox, record.attached, record.kept_for) == ("work", frozenset({"one"}), 600.0)
        assert kept.holder == record.uid
        # Another channel of this gateway costs nothing.
        assert one.requests() == ["PATCH pods"]
        other = await one.join("s2")
        assert not other.made
        assert one.requests() == []
        assert one.registry.cache.owned("ada", one.registry.now) == 1
        attached.sandbox.used = True  # type: ignore[attr-defined]
        await attached.leave()
        await other.leave()
        await settled()
        assert one.requests() == ["PATCH pods"]
        # And after that the next login, here or at another gateway, sends as many as ever.
        await one.join("s3")
        assert one.requests()[:1] == ["PATCH pods"]
        async with gateway(kept, tmp_path, "two") as two:
            assert not (await two.join("s4")).made
            assert [request for request in two.requests() if request != "GET pods"] == ["PATCH pods"]


async def test_a_name_that_is_refused_for_a_moment_is_written_later_and_the_sandbox_stays(tmp_path: Path) -> None:
    kept = Kept()
    kept.warm("sshgate-warm-a")
    kept.denied = 2
    async with gateway(kept, tmp_path, "one") as one:
        await one.join("s1")
        while kept.record("sshgate-warm-a").sandbox != "work":
            assert one.registry.cache.knows_session("s1")
            await asyncio.sleep(0.05)
        assert kept.denied == 0
        assert not kept.record("sshgate-warm-a").deleting


async def test_of_two_gateways_at_once_one_gets_the_name_and_the_others_pod_goes(tmp_path: Path) -> None:
    kept = Kept()
    kept.warm("sshgate-warm-a")
    kept.warm("sshgate-warm-b")
    async with gateway(kept, tmp_path, "one") as one, gateway(kept, tmp_path, "two") as two:
        kept.taking = asyncio.Event()
        joining = [asyncio.create_task(gate.join(f"s{instance}")) for instance, gate in enumerate((one, two))]
        await settled()
        kept.taking.set()
        first, second = await asyncio.gather(*joining)
        assert first.sandbox.id == second.sandbox.id
        assert sorted((first.made, second.made)) == [False, True]
        await settled()
        named = [record for record in kept.records() if record.sandbox == "work"]
        assert [record.uid for record in named] == [kept.holder]
        assert named[0].attached == {"one", "two"}
        (lost,) = [record for record in kept.records() if record.sandbox is None]
        assert lost.deleting


async def test_a_login_that_leaves_while_its_name_is_taken_leaves_nothing(tmp_path: Path) -> None:
    kept = Kept()
    kept.warm("sshgate-warm-a")
    async with gateway(kept, tmp_path, "one") as one:
        kept.taking = asyncio.Event()
        joining = asyncio.create_task(one.join("s1"))
        await settled()
        joining.cancel()
        await asyncio.sleep(0.05)
        kept.taking.set()
        with pytest.raises(asyncio.CancelledError):
            await joining
        await settled()
        assert kept.record("sshgate-warm-a").deleting
        assert one.registry.cache.in_use(one.registry.now) == 0


async def test_a_pod_whose_gateway_fell_silent_is_given_to_its_user_by_another(tmp_path: Path) -> None:
    """The Lease was made, its answer lost. That gateway deletes the pod only as long as nobody has it."""
    kept = Kept()
    kept.warm("sshgate-warm-a")
    kept.warm("sshgate-warm-b")
    async with gateway(kept, tmp_path, "one") as one, gateway(kept, tmp_path, "two") as two:
        kept.broken = 500
        with pytest.raises(Unavailable):
            await one.join("s1")
        kept.broken = None
        (claimed,) = [record for record in kept.records() if record.state is State.CLAIMED]
        assert (claimed.sandbox, claimed.deleting) == (None, False)
        (orphan,) = orphans(one.registry.cache, at(ORPHAN_SECONDS))
        joined = await two.join("s2")
        assert (joined.sandbox.id, joined.made) == (claimed.name, False)
        assert kept.record(claimed.name).sandbox == "work"
        assert not await one.registry.delete(orphan)
        assert not kept.record(claimed.name).deleting
        await settled()
        (given_up,) = [record for record in kept.records() if record.uid != claimed.uid]
        assert given_up.deleting or given_up.state is State.WARM


async def test_a_home_or_an_older_gateway_makes_it_start_cold_and_take_its_name_all_the_same(tmp_path: Path) -> None:
    kept = Kept()
    kept.warm("sshgate-warm-a")
    async with gateway(kept, tmp_path, "one") as one:
        one.registry.membership.by_pod_name = {"older"}
        joined = await one.join("s1")
        assert (joined.sandbox.id, joined.sandbox.warm) == (labels.named_pod("ada", "work"), False)
        assert kept.holder == kept.record(joined.sandbox.id).uid
