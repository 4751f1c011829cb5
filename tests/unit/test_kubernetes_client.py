"""Requests to an API server that refuses, is busy, slow, gone, or talks nonsense."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from sshgate.config.model import SandboxPlace
from sshgate.errors import GateError, LimitReached, Unavailable
from sshgate.providers.kubernetes.api import credentials
from sshgate.providers.kubernetes.api import errors as failures
from sshgate.providers.kubernetes.api.client import ApiServer
from sshgate.providers.kubernetes.api.credentials import Credentials
from sshgate.providers.kubernetes.api.websocket import V5
from tests.unit.apiserver import connected, pod, serve, status, write_kubeconfig


async def refusal(tmp_path: Path, response: web.Response) -> GateError:
    async def answer(request: web.Request) -> web.StreamResponse:
        return response

    async with serve(answer, tmp_path) as served, connected(served) as api:
        with pytest.raises(GateError) as caught:
            await api.request("POST", "/api/v1/namespaces/test/pods", {}, doing="create the sandbox")
    return caught.value


QUOTA = (
    'pods "x" is forbidden: exceeded quota: compute, requested: limits.cpu=2,pods=1, used: limits.cpu=8,pods=4, '
    "limited: limits.cpu=8,pods=4"
)
ROLE = (
    'pods is forbidden: User "system:serviceaccount:gate:sshgate" cannot create resource "pods" in API group "" in the '
    'namespace "test"'
)


@pytest.mark.parametrize(
    ("code", "message", "kind", "sentence"),
    [
        (401, "Unauthorized", Unavailable, "does not accept the gateway's credentials"),
        (403, QUOTA, LimitReached, "quota 'compute' is full (requested: limits.cpu=2,pods=1"),
        (403, ROLE, failures.Forbidden, "lacks 'create' on 'pods'"),
        (403, 'admission webhook "w" denied the request: no', failures.Forbidden, "denied the request: no."),
        (404, 'namespaces "test" not found', failures.NotFound, 'namespaces "test" not found.'),
        (409, 'pods "x" already exists', failures.Conflict, "already exists."),
        (410, "too old resource version", failures.Expired, "forgotten"),
        (422, "Pod is invalid:\n spec: Required value", failures.Invalid, "Pod is invalid: spec: Required value."),
        (429, "Too many requests", Unavailable, "too much to do"),
        (500, "etcdserver: leader changed", Unavailable, "HTTP 500"),
        (503, "", Unavailable, "HTTP 503"),
    ],
)
async def test_each_refusal_is_its_error_and_one_sentence(
    tmp_path: Path, code: int, message: str, kind: type[GateError], sentence: str
) -> None:
    error = await refusal(tmp_path, status(code, "", message))
    assert isinstance(error, kind)
    assert sentence in str(error)
    assert "\n" not in str(error)
    assert "serviceaccount" not in str(error)


@pytest.mark.parametrize("body", ["<html>token=SECRET</html>", '{"kind":"Secret","message":"SECRET"}', "[" * 9999, ""])
@pytest.mark.parametrize("code", [400, 403, 404, 500, 502])
async def test_a_body_that_is_no_status_is_dropped(tmp_path: Path, code: int, body: str) -> None:
    error = await refusal(tmp_path, web.Response(status=code, text=body))
    assert "SECRET" not in str(error)
    assert "[" not in str(error)


async def test_a_long_refusal_is_cut(tmp_path: Path) -> None:
    error = await refusal(tmp_path, status(422, "", "word " * 1000))
    assert len(str(error)) < 400


async def test_a_busy_server_is_asked_again_when_it_says_so(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if len(served.requests) < 3:
            return status(429, "TooManyRequests", headers={"Retry-After": "0"})
        return web.json_response(pod("x"))

    async with serve(answer, tmp_path) as served, connected(served) as api:
        assert (await api.get_pod("x")).metadata.uid == "uid-x"
        assert len(served.requests) == 3


async def test_a_server_that_stays_busy_is_unavailable_in_bounded_time(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return status(429, "TooManyRequests", headers={"Retry-After": "3600"})

    async with serve(answer, tmp_path) as served, connected(served, api_timeout=0.3) as api:
        began = time.monotonic()
        with pytest.raises(Unavailable, match=r"0\.3 s"):
            await api.get_pod("x")
        assert time.monotonic() - began < 2


async def test_a_silent_server_is_unavailable_in_bounded_time(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        raise AssertionError("nobody waits that long")

    async with serve(answer, tmp_path) as served, connected(served, api_timeout=0.3) as api:
        for ask in (api.get_pod("x"), api.websocket(api.path("pods", "x", "exec"), "command=true")):
            began = time.monotonic()
            with pytest.raises(Unavailable, match=r"did not answer within 0\.3 s"):
                await ask
            assert time.monotonic() - began < 2


async def test_a_server_that_is_gone_is_unavailable_at_once(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response(pod("x"))

    async with serve(answer, tmp_path) as served:
        pass
    async with connected(served) as api:
        for ask in (api.get_pod("x"), api.websocket(api.path("pods", "x", "exec"), "command=true")):
            with pytest.raises(Unavailable, match="cannot be reached"):
                await ask


async def test_credentials_are_read_anew_after_401(tmp_path: Path) -> None:
    """A token in the kubeconfig was replaced, as external tools do."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.headers["Authorization"] != "Bearer second":
            return status(401, "Unauthorized")
        return web.json_response(pod("x"))

    async with serve(answer, tmp_path) as served, connected(served, reread=0.0) as api:
        with pytest.raises(failures.Unauthenticated):
            await api.get_pod("x")
        write_kubeconfig(served.kubeconfig, served.url, "second")
        assert (await api.get_pod("x")).metadata.name == "x"


async def test_requests_that_are_refused_together_are_all_repeated_with_the_credentials_that_one_has_read(
    tmp_path: Path,
) -> None:
    """A token has expired while several requests were under way, as it does every few minutes with exec plug-ins."""
    refused = asyncio.Barrier(3)

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.headers["Authorization"] != "Bearer second":
            await refused.wait()
            return status(401, "Unauthorized")
        if request.path.endswith("/exec"):
            socket = web.WebSocketResponse(protocols=(V5,))
            await socket.prepare(request)
            return socket
        return web.json_response(pod("x"))

    async with serve(answer, tmp_path) as served, connected(served, reread=0.3) as api:
        await asyncio.sleep(0.4)
        write_kubeconfig(served.kubeconfig, served.url, "second")
        one, other, socket = await asyncio.gather(
            api.get_pod("x"), api.get_pod("x"), api.websocket(api.path("pods", "x", "exec"), "command=true")
        )
        assert one.metadata.uid == other.metadata.uid == "uid-x"
        socket.close()


async def test_a_twin_for_another_thread_has_the_credentials_that_were_read_here(tmp_path: Path) -> None:
    observed: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.headers["Authorization"] != "Bearer second":
            return status(401, "Unauthorized")
        return web.json_response(pod("x"))

    async def look(twin: ApiServer) -> str:
        await twin.open()
        try:
            return (await twin.get_pod("x")).metadata.uid
        finally:
            await twin.close()

    async with serve(answer, tmp_path) as served:
        api = ApiServer(served.place(), 0.0, lambda verb, outcome, _: observed.append(f"{verb} {outcome}"))
        await api.open()
        write_kubeconfig(served.kubeconfig, served.url, "second")
        with pytest.raises(failures.Unauthenticated):
            await asyncio.to_thread(asyncio.run, look(api.for_other_loop()))
        await api.get_pod("x")
        assert await asyncio.to_thread(asyncio.run, look(api.for_other_loop())) == "uid-x"
        await asyncio.sleep(0)
        assert observed == ["get unauthenticated", "get ok", "get ok"]
        await api.close()


async def test_a_repeated_create_finds_its_own_pod_but_no_other(tmp_path: Path) -> None:
    """The first POST arrived, its answer did not."""
    existing = pod("x")
    existing["metadata"]["annotations"] = {"life": "1"}

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            return status(409, "AlreadyExists", 'pods "x" already exists')
        return web.json_response(existing)

    def manifest(instance: str) -> dict[str, object]:
        return {"metadata": {"name": "x", "annotations": {"life": instance}}}

    async with serve(answer, tmp_path) as served, connected(served) as api:
        assert (await api.create_pod(manifest("1"))).metadata.uid == "uid-x"
        with pytest.raises(failures.Conflict):
            await api.create_pod(manifest("2"))


@pytest.mark.parametrize("contended", [2, 99])
async def test_a_create_that_loses_against_another_change_of_its_quota_is_repeated(
    tmp_path: Path, contended: int
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            return status(404, "NotFound", 'pods "x" not found')
        if served.requests.count(f"POST {request.path}") <= contended:
            return status(409, "Conflict", 'Operation cannot be fulfilled on resourcequotas "q": has been modified')
        return web.json_response(pod("x"), status=201)

    async with serve(answer, tmp_path) as served, connected(served) as api:
        create = api.create_pod({"metadata": {"name": "x", "annotations": {}}})
        if contended == 2:
            assert (await create).metadata.uid == "uid-x"
        else:
            with pytest.raises(Unavailable, match="try again in a moment"):
                await create
        assert len(served.requests) < 9


async def test_a_repeated_create_finds_its_own_pod_though_admission_has_added_to_it(tmp_path: Path) -> None:
    existing = pod("x")
    existing["metadata"]["annotations"] = {"life": "1", "cni.example/addresses": "10.0.0.1"}
    existing["metadata"]["labels"] = {"session": "s1", "mesh.example/injected": "yes"}

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            return status(409, "AlreadyExists", 'pods "x" already exists')
        return web.json_response(existing)

    def manifest(session: str) -> dict[str, object]:
        return {"metadata": {"name": "x", "labels": {"session": session}, "annotations": {"life": "1"}}}

    async with serve(answer, tmp_path) as served, connected(served) as api:
        assert (await api.create_pod(manifest("s1"))).metadata.uid == "uid-x"
        with pytest.raises(failures.Conflict):
            await api.create_pod(manifest("s2"))


async def test_a_repeated_patch_whose_test_fails_may_have_been_carried_out(tmp_path: Path) -> None:
    """The first PATCH arrived on a kept connection, its answer did not."""
    patched: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "PATCH":
            patched.append(request.path)
            if len(patched) == 1:
                assert request.transport is not None
                request.transport.abort()
            return status(422, "Invalid", "the test failed")
        return web.json_response(pod("x"))

    async with serve(answer, tmp_path) as served, connected(served) as api:
        await api.get_pod("x")
        with pytest.raises(Unavailable):
            await api.patch_pod("x", [])
        with pytest.raises(failures.Invalid):
            await api.patch_pod("x", [])
        assert len(patched) == 3


async def test_credentials_that_stay_refused_cost_no_connections(tmp_path: Path) -> None:
    refused: set[object] = set()

    async def answer(request: web.Request) -> web.StreamResponse:
        refused.add(request.transport)
        return status(401, "Unauthorized")

    async with serve(answer, tmp_path) as served, connected(served, reread=0.0) as api:
        for _ in range(20):
            with pytest.raises(failures.Unauthenticated):
                await api.get_pod("x")
        assert len(refused) == 1


async def test_what_another_certificate_retires_is_closed_once_nobody_uses_it(tmp_path: Path) -> None:
    accepted = asyncio.Event()
    open_now: set[object] = set()

    async def answer(request: web.Request) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        open_now.add(transport)
        if "watch" in request.query:
            response = web.StreamResponse()
            await response.prepare(request)
            await accepted.wait()
            await response.write(b"{}\n")
            return response
        return status(401, "Unauthorized")

    materials = iter("abcdefgh")
    place = SandboxPlace(kubeconfig=tmp_path / "kubeconfig", namespace="test", api_timeout=2.0)

    async def read() -> Credentials:
        return replace(await credentials.read(place), material=next(materials))

    async with serve(answer, tmp_path):
        api = ApiServer(place, reread=0.0, read=read)
        await api.open()
        async with api.stream(api.path("pods"), {"watch": "true"}, 10.0) as lines:
            for _ in range(3):
                with pytest.raises(failures.Unauthenticated):
                    await api.get_pod("x")
            # What goes on over the first one goes on.
            accepted.set()
            assert [line async for line in lines] == [b"{}"]
        for _ in range(2):
            with pytest.raises(failures.Unauthenticated):
                await api.get_pod("x")
        await asyncio.sleep(0.1)
        still = [one for one in open_now if not one.is_closing()]  # type: ignore[attr-defined]
        assert len(still) <= 2, still
        await api.close()


async def test_a_refused_exec_says_why(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        message = 'pods "x" is forbidden: User "u" cannot create resource "pods/exec" in API group ""'
        return status(403, "Forbidden", message)

    async with serve(answer, tmp_path) as served, connected(served) as api:
        with pytest.raises(failures.Forbidden, match="lacks 'create' on 'pods/exec'"):
            await api.websocket(api.path("pods", "x", "exec"), "command=true")


@pytest.mark.parametrize("text", ["", "nonsense: [", "{}", "current-context: x\ncontexts: []\nclusters: []\nusers: []"])
async def test_a_broken_kubeconfig_is_a_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken"
    path.write_text(text)
    with pytest.raises(Unavailable, match="cannot be used"):
        await ApiServer(SandboxPlace(kubeconfig=path)).open()
    with pytest.raises(Unavailable, match="there is no kubeconfig"):
        await ApiServer(SandboxPlace(kubeconfig=tmp_path / "missing")).open()


async def test_a_name_is_one_part_of_the_path(tmp_path: Path) -> None:
    """Whatever a user calls a sandbox, the request is about a pod of the namespace."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.raw_path)
        return status(404)

    async with serve(answer, tmp_path) as served, connected(served) as api:
        with pytest.raises(GateError):
            await api.get_pod("x/../../secrets/y?watch=true&z")
    assert asked == ["/api/v1/namespaces/test/pods/x%2F..%2F..%2Fsecrets%2Fy%3Fwatch=true&z"]
