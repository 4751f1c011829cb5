"""The broker's port in a named sandbox while its gateways die: an agent's turn ends well."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lifecycle.conftest import MakeReplica, UserAt
from tests.rig.cluster import Namespace
from tests.rig.gateway import Gateway, nothing_left
from tests.rig.messages import ANSWER, FakeApi, fake_api
from tests.rig.ssh import Ssh
from tests.rig.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

KEY = "sk-ant-api03-of-two-gateways"
Replicas = tuple[Gateway, Ssh, Ssh]
"""A gateway, its user, and the same user at another one; both with the same named sandbox."""


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api() as running:
        yield running


@pytest.fixture
def replicas(space: Namespace, replica: MakeReplica, user: UserAt, api: FakeApi, tmp_path: Path) -> Iterator[Replicas]:
    """Two gateways. The first is for tests to kill: the other one ends the sandbox."""
    (tmp_path / "key").write_text(KEY)
    models = {"anthropic": {"upstream": api.url, "keys": str(tmp_path / "key")}}
    one, two = (replica(models=models, profiles={"default": {"models": ["anthropic"]}}) for _ in range(2))
    here, there = (user("dev", gateway).as_user("dev=work") for gateway in (one, two))
    yield one, here, there
    assert there.run("end", options=("-s",)).status == 0
    until(lambda: not space.living(), 30, "the end of it")


def test_another_gateway_takes_the_port_of_one_that_was_killed_in_a_stream(replicas: Replicas, api: FakeApi) -> None:
    """Claude Code asks again by itself, and its turn ends as if nothing had been."""
    one, here, there = replicas
    with here.running() as first:
        gate = api.held["long"] = threading.Event()  # the first answer does not end
        agent = there.start("claude -p 'a long one' </dev/null")
        until(lambda: bool(api.asked()), 60, "the first request")
        del api.held["long"]
        nothing_left(one.kill())
        out, err = agent.communicate(timeout=120)
        assert ANSWER.encode() in out, (out, err)
        assert {value for received in api.received for value in received.header("x-api-key")} == {KEY}
        assert len(api.asked()) > 1
        gate.set()
        first.kill()


def test_an_agent_that_nobody_watches_goes_on_when_its_gateway_was_killed(replicas: Replicas, api: FakeApi) -> None:
    """The other gateway opens the port although nobody logs in."""
    one, here, there = replicas
    assert here.run("nohup sh -c 'sleep 5; claude -p alone' >/tmp/answer 2>&1 </dev/null & sleep 0.3").status == 0
    nothing_left(one.kill())
    until(lambda: any(b"alone" in received.body for received in api.asked()), 120, "its request")
    answered = until(lambda: there.run("grep well /tmp/answer").out, 60, "its answer")
    assert ANSWER.encode() in answered


def test_a_login_by_another_gateway_learns_that_its_key_is_not_used_yet(replicas: Replicas) -> None:
    _, here, there = replicas
    options, key = ("-o", "SendEnv=ANTHROPIC_API_KEY", "-tt"), {"ANTHROPIC_API_KEY": "sk-ant-api03-mine"}
    with here.running():
        ended = there.run("true", options=options, environ=key)
        assert "your ANTHROPIC_API_KEY is not used yet" in ended.both
        assert "in use" not in ended.both


def test_an_agent_that_nobody_watches_goes_on_when_its_user_comes_back_by_another_gateway(
    replicas: Replicas, api: FakeApi
) -> None:
    one, here, there = replicas
    assert here.run("true").status == 0
    nothing_left(one.kill())
    with there.running():
        ended = there.run("claude -p hi </dev/null", limit=120)
        assert ANSWER.encode() in ended.out, ended.both
