"""Cold starts on a real cluster: into a good pod quickly, out of a hopeless one with one sentence and no pod left."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sshgate.config.model import Profile, ProfileLimits, Resources
from sshgate.errors import GateError, LimitReached, StartFailed, Unavailable
from sshgate.providers.kubernetes.provider import KubernetesProvider
from sshgate.sandbox.enter import park
from sshgate.sandbox.interfaces import Order
from sshgate.stream.interfaces import Exited
from tests.contract.kubernetes_namespace import BUSYBOX, Namespace, namespace
from tests.rig.cluster import RUNTIME_CLASS

pytestmark = pytest.mark.cluster

HOPELESS_SECONDS = 10.0
MISSING_VOLUME = {
    "volumes": [{"name": "v", "configMap": {"name": "gone"}}],
    "containers": [{"name": "shell", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
}


@pytest.fixture
async def place() -> AsyncIterator[Namespace]:
    async with namespace(labels={"pod-security.kubernetes.io/enforce": "restricted"}) as made:
        yield made


def order(profile: Profile) -> Order:
    return Order(profile, "alice", secrets.token_hex(5))


def profile(**fields: Any) -> Profile:
    return Profile(**{"image": BUSYBOX, "runtime_class": RUNTIME_CLASS, **fields})


async def enter(provider: KubernetesProvider, wanted: Profile) -> None:
    sandbox = await provider.create(order(wanted), lambda text: None)
    await sandbox.start(("/bin/sh", "-c", "echo in"), None)


async def refusal(provider: KubernetesProvider, wanted: Profile) -> tuple[GateError, float]:
    """The error of a start that cannot be, and the seconds it took."""
    began = time.monotonic()
    with pytest.raises(GateError) as caught:
        await enter(provider, wanted)
    return caught.value, time.monotonic() - began


async def test_a_sandbox_passes_the_restricted_pod_security_profile_and_is_entered(place: Namespace) -> None:
    async with place.provider() as provider:
        notices: list[str] = []
        sandbox = await provider.create(order(profile()), notices.append)
        process = await sandbox.start(("/bin/sh", "-c", "id -u; exit 3"), None)
        assert await process.read() == (1, b"1000\n")
        assert await process.read() is None
        assert await process.wait() == Exited(3)
        await process.close()
        await sandbox.delete()
        assert await place.living() == []
        assert notices[0] == "scheduling"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"image": "nowhere/missing:1", "image_pull_policy": "Never"}, "is not on the node"),
        ({"image": "localhost:1/missing:1", "image_pull_policy": "Always"}, r"pulled: .*connection refused"),
        ({"image": "NOT an image"}, "not the name of an image|refused"),
        ({"node_selector": {"nowhere": "1"}, "limits": ProfileLimits(unschedulable=2)}, "no node fits"),
        ({"resources": Resources(requests={"cpu": "900"}, limits={})}, "no node fits.*Insufficient cpu"),
        ({"pod_overrides": {"containers": [{"name": "shell", "command": ["/nope"]}]}}, "cannot be started"),
        ({"pod_overrides": {"containers": [{"name": "shell", "command": ["/bin/sh", "-c", "exit 9"]}]}}, "status 9"),
        (
            {"pod_overrides": {"containers": [{"name": "shell", "envFrom": [{"secretRef": {"name": "gone"}}]}]}},
            "cannot be configured",
        ),
        ({"pod_overrides": {"hostNetwork": True}}, "violates PodSecurity"),
        ({"runtime_class": "nowhere"}, "nowhere"),
        ({"pod_overrides": MISSING_VOLUME}, 'configmap "gone" not found'),
    ],
    ids=[
        "image not there",
        "registry not there",
        "image name invalid",
        "no such node",
        "too large",
        "command missing",
        "first program ends",
        "secret missing",
        "pod security",
        "runtime class",
        "volume missing",
    ],
)
async def test_a_hopeless_start_ends_soon_with_a_sentence_and_no_pod(
    place: Namespace, fields: dict[str, Any], sentence: str
) -> None:
    async with place.provider() as provider:
        error, seconds = await refusal(provider, profile(**fields))
        assert isinstance(error, StartFailed)
        assert error.args[0].endswith((".", ".)"))
        assert "\n" not in str(error)
        assert seconds < HOPELESS_SECONDS
        assert await place.living() == []
        assert re.search(sentence, str(error))


async def test_a_named_start_that_fails_leaves_the_pod_to_the_gateway_that_has_joined_it(place: Namespace) -> None:
    wanted = profile(image="sshgate-nowhere:1", image_pull_policy="Never")
    async with place.provider() as one, place.provider() as two:
        here, there = Order(wanted, "alice", "here", "work"), Order(wanted, "alice", "there", "work")
        made = await one.named.join(here, lambda text: None, lambda: lambda: None)
        joined = await two.named.join(there, lambda text: None, lambda: lambda: None)
        assert (made.made, joined.made) == (True, False)
        with pytest.raises(StartFailed, match="is not on the node"):
            await made.sandbox.start(("/bin/sh",), None)
        await made.leave()
        await asyncio.sleep(1)
        assert await place.living() == [made.sandbox.id]
        # The last one to fail deletes what will never run.
        with pytest.raises(StartFailed, match="is not on the node"):
            await joined.sandbox.start(("/bin/sh",), None)
        await joined.leave()
        for _ in range(100):
            if not await place.living():
                break
            await asyncio.sleep(0.1)
        assert await place.living() == []


async def test_a_full_quota_is_a_limit_reached_at_once(place: Namespace) -> None:
    spec = {"hard": {"pods": "0"}}
    await place.post(place.api.path("resourcequotas"), {"metadata": {"name": "small"}, "spec": spec})
    async with place.provider() as provider:
        for _ in range(50):  # the quota counts once its controller has seen it
            error, seconds = await refusal(provider, profile())
            if isinstance(error, LimitReached):
                break
            await asyncio.sleep(0.1)
        assert isinstance(error, LimitReached)
        assert "'small' is full" in str(error)
        assert seconds < 2
        assert await place.living() == []


async def test_an_image_without_a_shell_is_a_sentence_with_127(place: Namespace) -> None:
    """The pod's own first program is replaced, so that only the exec fails."""
    async with place.provider() as provider:
        sandbox = await provider.create(order(profile()), lambda text: None)
        with pytest.raises(StartFailed) as caught:
            await sandbox.start(("/no/such/shell",), None)
        assert caught.value.status == 127
        with pytest.raises(StartFailed) as refused:
            await sandbox.start(("/etc/passwd",), None)
        assert refused.value.status == 126
        await sandbox.delete()


async def test_a_cancelled_start_leaves_nothing_after_delete(place: Namespace) -> None:
    async with place.provider() as provider:
        sandbox = await provider.create(order(profile(node_selector={"nowhere": "1"})), lambda text: None)
        task = asyncio.create_task(sandbox.start(("/bin/sh",), None))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await sandbox.delete()
        assert await place.living() == []


async def test_several_programs_enter_a_new_sandbox_side_by_side(place: Namespace) -> None:
    async with place.provider() as provider:
        sandbox = await provider.create(order(profile()), lambda text: None)
        parked = await asyncio.gather(*(park(sandbox, None) for _ in range(5)))
        assert len({process.pid for process in parked}) == 5
        for process in parked:
            await process.close()
        await sandbox.delete()


async def test_a_missing_namespace_is_reported_when_the_gateway_starts(place: Namespace) -> None:
    with pytest.raises(Unavailable, match="'sshgate-nowhere' does not exist"):
        async with place.provider(namespace="sshgate-nowhere"):
            pass
