"""Connections by name from inside a sandbox, what models cost there, and budgets, as users and operators see them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeGateway
from tests.e2e.test_models import ASK, events
from tests.rig.broker import broker_process
from tests.rig.gateway import Gateway, free_port
from tests.rig.messages import ANSWER, FakeApi, fake_api
from tests.rig.ssh import Ssh
from tests.rig.waiting import until
from tests.unit.outside_world import authority, web_server

# Fetches an address through the proxy of the environment, and prints status and text.
FETCH = """python3 -c '
import os, socket, ssl, sys, urllib.parse
proxy, asked = map(urllib.parse.urlsplit, (os.environ["http_proxy"], sys.argv[1]))
def answer(s, line):
    s.sendall(line.encode() + b"\\r\\n\\r\\n")
    file = s.makefile("rb", 0)
    status = file.readline().split()[1].decode()
    while file.readline().strip(): pass
    return status, file
s = socket.create_connection((proxy.hostname, proxy.port), 20)
tunnel = asked.scheme == "https"
status, file = answer(s, f"CONNECT {asked.netloc} HTTP/1.1" if tunnel else f"GET {sys.argv[1]} HTTP/1.1")
if tunnel and status == "200":
    s = ssl._create_unverified_context().wrap_socket(s, server_hostname=asked.hostname)
    status, file = answer(s, f"GET {asked.path} HTTP/1.0")
print(status, file.read().decode().strip())
' """
# The address that `localhost` stands for is no public one: an exception, as for a mirror in a company.
PRIVATE = ["127.0.0.0/8", "::1/128"]


@pytest.fixture(scope="module")
def api() -> Iterator[FakeApi]:
    with fake_api() as running:
        yield running


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    root = tmp_path_factory.mktemp("site")
    (root / "file").write_text("from outside")
    _, context = authority(tmp_path_factory.mktemp("authority"), ["localhost"])
    with web_server(root, context) as port:
        yield port


@pytest.fixture(scope="module")
def brokered(
    make_gateway: MakeGateway, provider: str, api: FakeApi, site: int, tmp_path_factory: pytest.TempPathFactory
) -> Gateway:
    place = tmp_path_factory.mktemp("settings")
    (place / "key").write_text("sk-ant-api03-x")
    # An answer of the stand-in costs some cents by these.
    (place / "prices.yaml").write_text("date: 2026-11-29\nanthropic: {claude: {input: 1000, output: 1000}}\n")
    return make_gateway(
        provider,
        models={
            "anthropic": {"upstream": api.url, "keys": str(place / "key")},
            "prices": str(place / "prices.yaml"),
        },
        profiles={
            "default": {"models": ["anthropic"], "egress": {"allow": [f"localhost:{site}"], "private": PRIVATE}},
            "small": {"extends": "default", "budget": {"sandbox_usd": 0.01}},
            "strict": {"extends": "default", "egress": {"allow": [f"localhost:{site}"], "private": []}},
        },
        telemetry={"audit": "audit"},
    )


@pytest.fixture
def user(brokered: Gateway, user_at: Callable[[Gateway], Ssh]) -> Ssh:
    return user_at(brokered)


def verb(user: Ssh, *words: str) -> Any:
    return json.loads(user.run(" ".join(words), options=("-s",)).out)


def test_a_listed_name_is_fetched_and_another_is_refused_with_the_line_to_ask_for(
    user: Ssh, brokered: Gateway, site: int
) -> None:
    named = user.as_user("dev=egress")
    assert named.run(f"{FETCH} https://localhost:{site}/file").out == b"200 from outside\n"
    refused = named.run(f"{FETCH} http://evil.example/").out.decode()
    assert refused.startswith("403 sshgate: evil.example at port 80 is not on the list of this sandbox.")
    assert 'profiles.default.egress.allow: ["evil.example:80"]' in refused
    assert named.run(f"{FETCH} http://169.254.169.254/").out.startswith(b"403 ")
    listed = verb(named, "egress", "--json")
    assert [(one["sandbox"], one["host"], one["port"], one["refused"], one["count"]) for one in listed] == [
        ("egress", "localhost", site, None, 1),
        ("egress", "evil.example", 80, "not listed", 1),
        ("egress", "169.254.169.254", 80, "no name", 1),
    ]
    assert listed[0]["bytes_down"] > len("from outside")
    table = named.run("egress", options=("-s",)).out.decode()
    assert "refused: not listed" in table
    (event,) = [one for one in events(brokered, "egress.refused") if one["host"] == "evil.example"]
    assert (event["user"], event["name"], event["reason"]) == ("dev", "egress", "not listed")
    assert [one["host"] for one in events(brokered, "egress.allowed")][-1:] == ["localhost"]
    named.run("end", options=("-s",))


def test_a_name_that_stands_for_a_private_address_is_refused(user: Ssh, site: int) -> None:
    refused = user.as_user("dev+strict").run(f"{FETCH} https://localhost:{site}/file").out
    assert refused.startswith(b"403 sshgate: localhost stands for "), refused


def test_usage_has_what_models_cost_by_sandbox_and_model(user: Ssh, brokered: Gateway) -> None:
    named = user.as_user("dev=spent")
    assert named.run(f"{ASK} claude-x hello").out.decode().strip() == ANSWER
    found = verb(user, "usage", "--json")
    (row,) = [one for one in found["today"]["by"] if one["sandbox"] == "spent"]
    assert row["requests"] == 1
    assert row["usd"] == (row["input_tokens"] + row["cache_read_tokens"] / 10 + row["output_tokens"]) / 1000
    assert found["this_month"]["usd"] >= row["usd"] > 0
    event = events(brokered, "model.request")[-1]
    assert (event["usd"], event["output_tokens"]) == (row["usd"], row["output_tokens"])
    assert "spent" in user.run("usage", options=("-s",)).out.decode()
    named.run("end", options=("-s",))


def test_a_used_up_budget_is_a_sentence_in_the_agents_window(user: Ssh, api: FakeApi) -> None:
    small = user.as_user("dev+small=poor")
    assert small.run(f"{ASK} claude-x hello").out.decode().strip() == ANSWER
    asked = len(api.asked())
    refused = small.run(f"{ASK} claude-x again").out.decode()
    assert refused.startswith("429 sshgate: the budget of this sandbox is used up: $0.0"), refused
    assert len(api.asked()) == asked
    small.run("end", options=("-s",))


@pytest.mark.parametrize("provider", ["kubernetes"], indirect=True)  # Claude Code is in the image
def test_a_used_up_budget_reads_well_in_claude_code(user: Ssh) -> None:
    """Word for word and at once: it does not try again."""
    small = user.as_user("dev+small=claude")
    assert ANSWER.encode() in small.run("claude -p hi </dev/null", limit=90).out
    began = time.monotonic()
    refused = small.run("claude -p hi </dev/null", limit=90)
    assert b"the budget of this sandbox is used up: $" in refused.out + refused.err, refused.both
    assert time.monotonic() - began < 60
    small.run("end", options=("-s",))


@pytest.mark.local
def test_a_broker_of_its_own_counts_for_all_gateways_and_is_replaced_without_loss(
    local: None, api: FakeApi, site: int, gateway: MakeGateway, user_at: Callable[[Gateway], Ssh], tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("0123456789abcdef" * 4)
    (tmp_path / "key").write_text("sk-ant-api03-x")
    settings: dict[str, Any] = {
        "models": {"anthropic": {"upstream": api.url, "keys": str(tmp_path / "key")}, "budget": {"user_day_usd": 5}},
        "broker": {"listen": f"127.0.0.1:{free_port()}", "secret": str(tmp_path / "secret")},
        "profiles": {
            "default": {"models": ["anthropic"], "egress": {"allow": [f"localhost:{site}"], "private": PRIVATE}}
        },
    }
    own = {**settings, "sandbox": {"provider": "local"}, "ssh": {"listen": "127.0.0.1:2222", "drain": "1s"}}
    user = user_at(gateway("local", **settings))
    for turn in (1, 2):
        with broker_process(tmp_path, own):
            until(lambda: user.run(f"{ASK} claude-x hi").out.decode().strip() == ANSWER, 30, "a turn")
            assert user.run(f"{FETCH} https://localhost:{site}/file").out == b"200 from outside\n"
            until(lambda: verb(user, "egress", "--json")[0]["count"] == 1, 30, "counts")
        # What the broker has counted was written down when it ended.
        assert verb(user, "usage", "--json")["today"]["requests"] >= turn


@pytest.mark.cluster
def test_a_budget_holds_over_gateways_and_restarts(
    cluster: Path, api: FakeApi, gateway: MakeGateway, user_at: Callable[[Gateway], Ssh], tmp_path: Path
) -> None:
    """Of a profile of its own: the same user has spent something in other tests today."""
    (tmp_path / "key").write_text("sk-ant-api03-x")
    (tmp_path / "prices.yaml").write_text("date: 2026-11-29\nanthropic: {claude: {input: 1000, output: 1000}}\n")
    settings: dict[str, Any] = {
        "models": {
            "anthropic": {"upstream": api.url, "keys": str(tmp_path / "key")},
            "prices": str(tmp_path / "prices.yaml"),
        },
        "profiles": {"default": {}, "held": {"models": ["anthropic"], "budget": {"user_day_usd": 0.03}}},
    }
    first, second = (user_at(gateway("kubernetes", **settings)).as_user("dev+held=budget") for _ in range(2))
    for _ in range(2):
        assert first.run(f"{ASK} claude-x hi").out.decode().strip() == ANSWER
    assert first.run(f"{ASK} claude-x hi").out.startswith(b"429 sshgate: your budget of today in 'held' is used up")

    def spent() -> bool:
        rows = verb(second, "usage", "--json")["today"]["by"]
        return any(one["sandbox"] == "budget" and one["requests"] == 2 for one in rows)

    until(spent, 30, "the other gateway's charges")
    other = second.as_user("dev+held")
    assert other.run(f"{ASK} claude-x hi").out.startswith(b"429 ")
    restarted = user_at(gateway("kubernetes", **settings)).as_user("dev+held")
    assert restarted.run(f"{ASK} claude-x hi").out.startswith(b"429 ")
    first.run("end", options=("-s",))
