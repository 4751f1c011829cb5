"""How many homes there may be, and what becomes of one whose sandbox was refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from sshgate.config.model import Group, Home, Limits, Profile
from sshgate.errors import LimitReached, StartFailed, Unavailable
from sshgate.lifecycle import schema as labels
from sshgate.lifecycle.admission import admit_home
from sshgate.providers.kubernetes.api.errors import Forbidden
from sshgate.providers.kubernetes.homes import KubernetesHomes, VolumeClaim
from sshgate.sandbox.interfaces import Order
from tests.unit.apiserver import connected, serve, status
from tests.unit.lifecycle_values import at

PROFILE = Profile(home=Home(size="1Gi"))


class Claims:
    """The volume claims of a namespace, as its API server has them."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        self.users: list[str] = []
        self.version = 0

    def change(self, name: str) -> dict[str, Any]:
        """A controller of the cluster changes something of a claim."""
        self.version += 1
        self.kept[name]["metadata"]["resourceVersion"] = str(self.version)
        return self.kept[name]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.02)  # as long as another request takes to come in between
        name = request.path.rpartition("/")[2]
        if request.path.endswith("/pods"):
            volumes = [{"persistentVolumeClaim": {"claimName": claim}} for claim in self.users]
            pod = {"metadata": {"name": "other", "uid": "u"}, "spec": {"volumes": volumes}, "status": {}}
            return web.json_response({"metadata": {}, "items": [pod]})
        if request.method == "POST":
            made = await request.json()
            made["metadata"]["uid"] = f"uid-{made['metadata']['name']}"
            self.kept[made["metadata"]["name"]] = made
            return web.json_response(self.change(made["metadata"]["name"]), status=201)
        if name == "persistentvolumeclaims":
            return web.json_response({"metadata": {}, "items": list(self.kept.values())})
        if name not in self.kept:
            return status(404, "NotFound")
        if request.method == "PATCH":
            notes = self.kept[name]["metadata"]["annotations"]
            for operation in await request.json():
                if operation["op"] == "remove":
                    del notes[operation["path"].rpartition("/")[2].replace("~1", "/")]
            return web.json_response(self.change(name))
        if request.method == "DELETE":
            wanted = (await request.json())["preconditions"]
            if any(self.kept[name]["metadata"][key] != value for key, value in wanted.items()):
                return status(409, "Conflict")
            return web.json_response(self.kept.pop(name))
        return web.json_response(self.kept[name])


def order(user: str, name: str) -> Order:
    return Order(user=user, profile=PROFILE, session=f"{user}-{name}", name=name)


@asynccontextmanager
async def homes(directory: Path, claims: Claims, limits: Limits) -> AsyncIterator[KubernetesHomes]:
    async with serve(claims.answer, directory) as served, connected(served) as api:
        yield KubernetesHomes(api, {"default": PROFILE}, lambda: at(0), lambda: limits)


async def prepared(kept: KubernetesHomes, one: Order) -> VolumeClaim | None:
    return await kept.prepare(one, kept.planned(one))


async def test_a_user_keeps_so_many_homes_and_comes_back_to_each(tmp_path: Path) -> None:
    claims = Claims()
    async with homes(tmp_path, claims, Limits(homes_per_user=2)) as kept:
        for name in ("a", "b"):
            assert await prepared(kept, order("ada", name)) is not None
        with pytest.raises(LimitReached, match=r"you keep 2 of 2 homes; .*`ssh -s USER=NAME@HOST delete-home`"):
            await prepared(kept, order("ada", "c"))
        assert await prepared(kept, order("ada", "b")) is None
        assert await prepared(kept, order("bob", "c")) is not None
        # One that is on its way out is no longer kept.
        claims.kept[next(iter(claims.kept))]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        assert await prepared(kept, order("ada", "c")) is not None


async def test_of_homes_that_are_made_at_once_no_more_come_to_be(tmp_path: Path) -> None:
    claims = Claims()
    async with homes(tmp_path, claims, Limits(homes_per_user=3)) as kept:
        orders = [order("ada", f"n{number}") for number in range(8)]
        done = await asyncio.gather(*(prepared(kept, one) for one in orders), return_exceptions=True)
        assert sum(isinstance(one, LimitReached) for one in done) == 5
        assert len(claims.kept) == 3


async def test_a_home_that_somebody_uses_already_is_not_made_for_nothing(tmp_path: Path) -> None:
    claims = Claims()
    claims.users = [f"home-{labels.named_pod('ada', 'a')}"]
    async with homes(tmp_path, claims, Limits()) as kept:
        with pytest.raises(StartFailed, match="in use by other"):
            await prepared(kept, order("ada", "a"))
        assert claims.kept == {}


async def test_what_a_start_has_made_goes_and_nothing_else(tmp_path: Path) -> None:
    claims = Claims()
    async with homes(tmp_path, claims, Limits()) as kept:
        made = await prepared(kept, order("ada", "a"))
        await kept.undo(None)
        assert len(claims.kept) == 1
        await kept.undo(made)
        await kept.undo(made)
        assert claims.kept == {}


@pytest.mark.parametrize("changed", [False, True], ids=["as it was made", "bound meanwhile"])
async def test_a_home_that_another_gateway_uses_meanwhile_stays(tmp_path: Path, changed: bool) -> None:
    claims = Claims()
    async with homes(tmp_path, claims, Limits()) as one, homes(tmp_path, claims, Limits()) as two:
        made = await prepared(one, order("ada", "a"))
        assert made is not None
        if changed:
            claims.change(made.metadata.name)
        assert await prepared(two, order("ada", "a")) is None
        await one.undo(made)
        assert list(claims.kept) == [made.metadata.name]
        # What nobody else uses goes, whatever the cluster has changed of it.
        alone = await prepared(one, order("ada", "b"))
        assert alone is not None
        claims.change(alone.metadata.name)
        await one.undo(alone)
        assert list(claims.kept) == [made.metadata.name]


async def test_of_an_undo_and_a_start_at_once_only_one_has_the_home(tmp_path: Path) -> None:
    claims = Claims()
    async with homes(tmp_path, claims, Limits()) as one, homes(tmp_path, claims, Limits()) as two:
        for number in range(8):
            name = f"n{number}"
            made = await prepared(one, order("ada", name))
            assert made is not None

            async def undo(pause: float, made: VolumeClaim = made) -> None:
                await asyncio.sleep(pause)
                await one.undo(made)

            found, _ = await asyncio.gather(
                prepared(two, order("ada", name)), undo(number * 0.01), return_exceptions=True
            )
            # The start has a home that stays, or is asked to try again.
            assert (made.metadata.name in claims.kept) == (not isinstance(found, StartFailed))
            claims.kept.clear()


async def test_what_the_api_server_refuses_is_raised_as_the_contract_has_it(tmp_path: Path) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        return status(403, "Forbidden", "no")

    async with serve(refuse, tmp_path) as served, connected(served) as api:
        kept = KubernetesHomes(api, {"default": PROFILE}, lambda: at(0), Limits)
        with pytest.raises(Forbidden, match="refused to look at the home: no") as refused:
            await prepared(kept, order("ada", "a"))
        assert not isinstance(refused.value, StartFailed)
        with pytest.raises(Unavailable, match="refused to list homes: no"):
            await kept.list("ada")


def test_a_group_keeps_so_many_homes_together() -> None:
    limits = Limits(groups={"students": Group(users=("s-*",), homes=2), "all": Group(users=("*",))})
    owners = [(user, labels.user_hash(user)) for user in ("s-ada", "s-bob", "eve")]
    admit_home(limits, "eve", owners)
    admit_home(limits, "s-ada", owners[1:])
    with pytest.raises(LimitReached, match="your group 'students' keeps 2 of 2 homes"):
        admit_home(limits, "s-carol", owners)
