"""What happens to programs when their pod, or the way to it, goes."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from sshgate.config.model import Profile
from sshgate.providers.kubernetes.provider import KubernetesProvider
from sshgate.providers.kubernetes.sandbox import END_REASON_SECONDS, KubernetesSandbox
from sshgate.sandbox.enter import park
from sshgate.sandbox.interfaces import Order, Sandbox
from sshgate.stream.interfaces import Exited, Lost, Outcome
from tests.contract.kubernetes_namespace import BUSYBOX, Namespace
from tests.contract.programs import begin, everything, run
from tests.rig.cluster import RUNTIME_CLASS

pytestmark = pytest.mark.cluster

PROFILE = Profile(image=BUSYBOX, runtime_class=RUNTIME_CLASS)


@pytest.fixture
async def provider(place: Namespace) -> AsyncIterator[KubernetesProvider]:
    async with place.provider() as made:
        yield made


@pytest.fixture
async def sandbox(provider: KubernetesProvider) -> AsyncIterator[Sandbox]:
    made = await provider.create(Order(PROFILE, "alice", secrets.token_hex(5)), lambda text: None)
    yield made
    await made.delete()


@pytest.mark.parametrize("megabytes", [1, 10, 60])
async def test_a_program_that_leaves_stdin_unread_ends_with_its_status(sandbox: Sandbox, megabytes: int) -> None:
    """containerd 1.6 alone would wait for ever, and a closed connection would read as success."""
    for command, status in ((b"exit 5", 5), (b"exit 0", 0), (b"sleep 0.3; head -c 3; exit 6", 6)):
        _, err, outcome = await run(sandbox, command, bytes(megabytes << 20))
        assert (err, outcome) == (b"", Exited(status))


# A node that has said everything and closed is pinged by the API server every five seconds; the kubelet then drops
# what the client has not taken. So long a client must stall for that, with less than the buffers on the way hold.
STALL = 11.0
IN_BUFFERS = 6_000_000


async def test_a_client_that_stalls_gets_the_whole(sandbox: Sandbox) -> None:
    async def stalled(command: bytes, no_input: bool = False, ends: bool = True) -> tuple[int, Outcome]:
        process = await begin(sandbox, command + b"head -c %d /dev/zero; exit 6" % IN_BUFFERS, no_input=no_input)
        await process.write(b"input\n" * (not no_input))
        if ends:
            await process.write_eof()
        await asyncio.sleep(STALL)
        out, _, outcome = await everything(process)
        return len(out), outcome

    # Without any input; with some that ends in the middle, be it read or not; with one that goes on.
    results = await asyncio.gather(
        stalled(b"", no_input=True), stalled(b"read x; "), stalled(b"cat >/dev/null; "), stalled(b""),
        stalled(b"read x; ", ends=False),
    )  # fmt: skip
    assert list(results) == [(IN_BUFFERS, Exited(6))] * 5


async def test_a_program_that_wrote_much_elsewhere_ends_with_its_input(sandbox: Sandbox) -> None:
    """Its launcher waits for little output to be taken: it cannot tell which of all that was written is output."""
    command = b"head -c 3000000 /dev/zero > /tmp/large; cat; rm /tmp/large; exit 6"
    assert await run(sandbox, command, b"in") == (b"in", b"", Exited(6))
    assert await run(sandbox, b"ls /tmp") == (b"", b"", Exited(0))


async def test_programs_that_end_together_may_ask_why_together(sandbox: Sandbox) -> None:
    """Whoever stops waiting for the sandbox's fate does not end the others' waiting."""
    assert isinstance(sandbox, KubernetesSandbox)

    async def asked(after: float) -> str | None:
        await asyncio.sleep(after)
        return await sandbox.end_reason()

    assert [*await asyncio.gather(asked(0), asked(END_REASON_SECONDS / 2))] == [None, None]


async def test_stderr_passes_whole_with_what_looks_like_a_mark(sandbox: Sandbox) -> None:
    command = rb"printf '\036' >&2; printf '\036\036abc\037\036' >&2; exit 3"
    assert await run(sandbox, command) == (b"", b"\x1e\x1e\x1eabc\x1f\x1e", Exited(3))


async def test_a_deleted_pod_ends_its_programs(provider: KubernetesProvider, sandbox: Sandbox) -> None:
    """Deleted behind the gateway's back: lost with the reason, within seconds."""
    process = await begin(sandbox, b"sleep 100")
    await provider.api.delete_pod(sandbox.id, grace=1)
    async with asyncio.timeout(10):
        _, _, outcome = await everything(process)
    assert isinstance(outcome, Lost)
    assert "deleted" in outcome.reason


async def test_a_pod_past_its_deadline_ends_its_programs(provider: KubernetesProvider, place: Namespace) -> None:
    """The kubelet enforces the longest lifetime; the user reads why."""
    profile = replace(PROFILE, pod_overrides={"activeDeadlineSeconds": 3})
    sandbox = await provider.create(Order(profile, "alice", secrets.token_hex(5)), lambda text: None)
    process = await begin(sandbox, b"sleep 100")
    async with asyncio.timeout(20):
        _, _, outcome = await everything(process)
    assert isinstance(outcome, Lost)
    assert "longest lifetime" in outcome.reason


async def test_closing_the_provider_ends_programs_and_pods(place: Namespace, provider: KubernetesProvider) -> None:
    sandbox = await provider.create(Order(PROFILE, "bob", secrets.token_hex(5)), lambda text: None)
    process = await park(sandbox, None)
    async with asyncio.timeout(10):
        await provider.close()
        assert isinstance((await everything(process))[2], Lost)
    assert await place.living() == []


ABANDONED = """
import asyncio, sys
from sshgate.config.model import Profile, SandboxPlace
from sshgate.providers.kubernetes.provider import KubernetesProvider
from sshgate.sandbox.interfaces import Order

async def main(kubeconfig, namespace, image, runtime_class):
    place = SandboxPlace(kubeconfig=kubeconfig, namespace=namespace, gateway="test")
    provider = KubernetesProvider(place)
    await provider.open()
    profile = Profile(image=image, runtime_class=runtime_class or None)
    await provider.create(Order(profile, "alice", "aaaaaaaaaa"), lambda text: None)
    named = await provider.create(Order(profile, "alice", "bbbbbbbbbb", name="work"), lambda text: None)
    print("named", named.id, flush=True)
    await asyncio.sleep(600)

asyncio.run(main(*sys.argv[1:]))
"""


@asynccontextmanager
async def abandoned(place: Namespace) -> AsyncIterator[str]:
    """A gateway process that has made two sandboxes and was killed with -9; the id of the named one."""
    words = (place.place().kubeconfig, place.name, BUSYBOX, RUNTIME_CLASS or "")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ABANDONED, *map(str, words), stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            while not (line := (await process.stdout.readline()).decode()).startswith("named"):
                assert line, "the gateway did not get so far"
        process.kill()
        await process.wait()
        yield line.split()[1]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_next_instance_of_a_gateway_removes_the_pods_of_the_last(place: Namespace) -> None:
    """After kill -9 nobody has deleted them."""
    async with place.provider(gateway="another") as other, abandoned(place) as named:
        foreign = await other.create(Order(PROFILE, "bob", secrets.token_hex(5)), lambda text: None)
        assert len(await place.living()) == 3
        async with place.provider():
            for _ in range(200):
                if len(await place.living()) == 2:
                    break
                await asyncio.sleep(0.05)
            assert set(await place.living()) == {named, foreign.id}
