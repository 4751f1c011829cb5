"""Models from inside a sandbox: the key stays outside, the port belongs to the sandbox, agents find it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.conftest import MakeGateway
from tests.rig.broker import broker_process
from tests.rig.gateway import Gateway, free_port
from tests.rig.library import connection
from tests.rig.messages import ANSWER, FakeApi, fake_api
from tests.rig.scrape import Scraped
from tests.rig.ssh import Ssh, environment
from tests.rig.waiting import until

CANARY = "sk-ant-api03-operators-canary-5f1c"
BROUGHT = "sk-ant-api03-brought-canary-77aa"
# Asks for an answer as an agent does, and prints its text.
ASK = """python3 -c '
import json, os, sys, urllib.request
body = {"model": sys.argv[1], "max_tokens": 9, "messages": [{"role": "user", "content": sys.argv[2]}]}
head = {"x-api-key": os.environ["ANTHROPIC_AUTH_TOKEN"], "content-type": "application/json"}
url = os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages"
try:
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), head), timeout=30) as answer:
        print(json.load(answer)["content"][0]["text"])
except urllib.error.HTTPError as error:
    print(error.code, json.load(error)["error"]["message"])
' """
# A hundred streams at once; prints how many of them came whole.
STREAMS = """python3 -c '
import asyncio, json, os, urllib.parse
url = urllib.parse.urlsplit(os.environ["ANTHROPIC_BASE_URL"])
asked = {"model": "claude-x", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
body = json.dumps(asked)
head = f"POST {url.path}/v1/messages HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\nContent-Length: {len(body)}"
async def stream():
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(f"{head}\\r\\n\\r\\n{body}".encode())
    return b"message_stop" in await reader.read()
async def main():
    print(sum(await asyncio.gather(*(stream() for _ in range(100)))))
asyncio.run(main())
' """
# Prints where a text, put together there, is found: in environments and command lines of processes, and files.
SEARCH = """python3 -c '
import os, sys
text = (sys.argv[1] + sys.argv[2]).encode()
for place, _, names in list(os.walk("/home")) + list(os.walk("/tmp")) + list(os.walk("/dev/shm")):
    for name in names:
        try:
            if text in open(os.path.join(place, name), "rb").read(1 << 24): print(place, name)
        except OSError: pass
for pid in filter(str.isdigit, os.listdir("/proc")):
    for name in ("environ", "cmdline"):
        try:
            if text in open(f"/proc/{pid}/{name}", "rb").read(): print(pid, name)
        except OSError: pass
print("searched")
' """


@pytest.fixture(scope="module")
def api() -> Iterator[FakeApi]:
    with fake_api() as running:
        yield running


@pytest.fixture(scope="module")
def brokered(
    make_gateway: MakeGateway, provider: str, api: FakeApi, tmp_path_factory: pytest.TempPathFactory
) -> Gateway:
    keys = tmp_path_factory.mktemp("keys") / "anthropic"
    keys.write_text(CANARY)
    return make_gateway(
        provider,
        models={"anthropic": {"upstream": api.url, "keys": str(keys), "allow": ["claude-*"]}},
        profiles={
            "default": {"models": ["anthropic"]},
            "none": {"extends": "default", "models": []},
            "short": {"extends": "default", "limits": {"detached": "2s"}},
        },
        telemetry={"audit": "audit"},
    )


@pytest.fixture
def user(brokered: Gateway, user_at: Callable[[Gateway], Ssh], api: FakeApi) -> Ssh:
    api.received.clear()
    return user_at(brokered)


def nowhere(user: Ssh, gateway: Gateway, key: str) -> None:
    """Assert that the key is in no process and no file of the sandbox, and in nothing that the gateway writes."""
    half = len(key) // 2
    assert user.run(f"{SEARCH} {key[:half]} {key[half:]}").out == b"searched\n"
    assert key not in gateway.log()
    assert key not in (gateway.place / "audit").read_text()


def events(gateway: Gateway, code: str) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (gateway.place / "audit").read_text().splitlines()]
    return [one for one in records if one["event"] == code]


def test_a_program_asks_a_model_with_a_key_that_it_does_not_have(user: Ssh, brokered: Gateway, api: FakeApi) -> None:
    ended = user.run(f"{ASK} claude-x hello")
    assert ended.out.decode().strip() == ANSWER, ended.both
    (received,) = api.asked()
    assert received.header("x-api-key") == [CANARY]
    assert received.content["messages"][0]["content"] == "hello"
    (event, *_) = events(brokered, "model.request")[-1:]
    assert (event["user"], event["model"], event["status"]) == ("dev", "claude-x", 200)
    assert "hello" not in json.dumps(event)
    nowhere(user, brokered, CANARY)


def test_a_refusal_is_a_sentence_in_the_providers_form(user: Ssh, brokered: Gateway, api: FakeApi) -> None:
    ended = user.run(f"{ASK} gpt-5 hello")
    assert ended.out.startswith(b"403 sshgate: the model 'gpt-5' is not allowed here"), ended.both
    assert api.asked() == []
    assert events(brokered, "model.refused")[-1]["status"] == 403


def test_a_profile_without_models_has_neither_port_nor_variables(user: Ssh) -> None:
    ended = user.as_user("dev+none").run("env; ss -lnt 2>/dev/null; cat /proc/net/tcp")
    assert b"ANTHROPIC" not in ended.out
    assert b":1267 " not in ended.out  # 4711


def test_a_key_that_its_user_brings_is_used_and_gets_nowhere(user: Ssh, brokered: Gateway, api: FakeApi) -> None:
    options = ("-o", "SendEnv=ANTHROPIC_API_KEY", "-tt")
    ended = user.run(f"env | grep API_KEY; {ASK} claude-x hi", options=options, environ={"ANTHROPIC_API_KEY": BROUGHT})
    assert ANSWER.encode() in ended.out, ended.both
    assert "your ANTHROPIC_API_KEY stays outside" in ended.both
    assert BROUGHT.encode() not in ended.out
    assert api.asked()[-1].header("x-api-key") == [BROUGHT]
    nowhere(user, brokered, BROUGHT)


def test_the_key_of_a_provider_that_the_profile_lacks_does_not_get_in_either(user: Ssh) -> None:
    key = {"OPENAI_API_KEY": "sk-" + BROUGHT[3:]}
    ended = user.run("env; true", options=("-o", "SendEnv=OPENAI_API_KEY", "-tt"), environ=key)
    assert key["OPENAI_API_KEY"] not in ended.both
    assert "your OPENAI_API_KEY was not passed on" in ended.both


def test_a_subscriptions_token_is_not_taken(user: Ssh, api: FakeApi) -> None:
    options = ("-o", "SendEnv=CLAUDE_CODE_OAUTH_TOKEN ANTHROPIC_API_KEY", "-tt")
    token = {"CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-xx", "ANTHROPIC_API_KEY": "sk-ant-oat01-xx"}
    ended = user.run(f"env; {ASK} claude-x hi", options=options, environ=token)
    assert b"sk-ant-oat" not in ended.out
    assert "subscription" in ended.both
    assert api.asked()[-1].header("x-api-key") == [CANARY]


def test_the_port_belongs_to_the_sandbox_and_not_to_a_login(user: Ssh, api: FakeApi) -> None:
    """The login that opened it goes; another one's agent, and one that nobody watches, go on."""
    named = user.as_user("dev=port")
    agent = f"nohup sh -c 'sleep 3; {ASK.replace(chr(39), chr(39) + chr(92) + chr(39) + chr(39))} claude-x alone' "
    with named.running():
        assert named.run(f"{ASK} claude-x beside").out.decode().strip() == ANSWER
        named.run(f"{agent} >/tmp/answer 2>&1 </dev/null & sleep 0.2")
    until(lambda: any(one.content["messages"][0]["content"] == "alone" for one in api.asked()), 20, "the agent's turn")
    assert named.run(f"{ASK} claude-x again").out.decode().strip() == ANSWER
    assert named.run("cat /tmp/answer").out.decode().strip() == ANSWER
    named.run("end", options=("-s",))


def test_the_port_does_not_keep_a_named_sandbox(user: Ssh) -> None:
    """Nothing runs in it once its client has left."""
    short = user.as_user("dev+short=kept")
    assert short.run(f"{ASK} claude-x hi").out.decode().strip() == ANSWER
    until(lambda: b"kept" not in user.run("sandboxes", options=("-s",)).out, 60, "its end")


def test_an_answer_arrives_as_it_comes(user: Ssh, api: FakeApi) -> None:
    gate = api.held["slowly"] = threading.Event()
    printed = 'print(answer.read1(9999)); sys.stdout.flush(); answer.read(); print("end")'
    stream = ASK.replace('"max_tokens": 9,', '"stream": True,')
    stream = stream.replace('print(json.load(answer)["content"][0]["text"])', printed)
    client = user.start(f"{stream} claude-x slowly")
    assert client.stdout is not None
    assert b"message_start" in client.stdout.readline()
    gate.set()
    out, _ = client.communicate(timeout=30)
    assert b"end" in out


@pytest.mark.parametrize("provider", ["kubernetes"], indirect=True)
def test_a_hundred_streams_at_once_come_whole_while_twenty_people_type(user: Ssh, api: FakeApi) -> None:
    named = user.as_user("dev=many")

    async def person(made: asyncssh.SSHClientConnection) -> asyncssh.SSHClientProcess[bytes]:
        process = await made.create_process("stty raw -echo; echo ready; exec cat", term_type="xterm", encoding=None)
        await process.stdout.readuntil(b"ready\n")
        return process

    async def everybody() -> bytes:
        async with asyncio.timeout(60), connection(named) as made:
            people = [await person(made) for _ in range(20)]
            argv = named.argv(STREAMS)
            streams = await asyncio.create_subprocess_exec(*argv, stdin=-3, stdout=-1, env=environment())
            await asyncio.to_thread(until, lambda: len(api.asked()) == 100, 30, "all streams")
            for _ in range(20):
                for process in people:
                    process.stdin.write(b"x")
                assert [await process.stdout.readexactly(1) for process in people] == [b"x"] * 20
            assert streams.returncode is None
            api.pause = 0.0
            return (await streams.communicate())[0]

    api.pieces, api.pause = 400, 0.05
    try:
        assert asyncio.run(everybody()) == b"100\n"
    finally:
        api.pieces, api.pause = 3, 0.0
        named.run("end", options=("-s",))


@pytest.mark.parametrize("variable", ["ANTHROPIC_BASE_URL", "ANTHROPIC_AUTH_TOKEN"])
def test_a_client_cannot_lead_agents_elsewhere(user: Ssh, variable: str) -> None:
    ended = user.run(f"echo ${variable}", options=("-o", f"SetEnv={variable}=https://elsewhere.example"))
    assert ended.out.strip() in (b"http://127.0.0.1:4711/anthropic", b"sshgate")


@pytest.mark.parametrize("provider", ["kubernetes"], indirect=True)  # Claude Code is in the image
def test_claude_code_answers_without_a_question(user: Ssh, brokered: Gateway, api: FakeApi) -> None:
    ended = user.run("claude -p hi </dev/null", limit=90)
    assert ANSWER.encode() in ended.out, ended.both
    assert {value for one in api.received for value in one.header("x-api-key")} == {CANARY}
    assert not any(one.header("authorization") for one in api.received)
    nowhere(user, brokered, CANARY)
    (refused,) = (user.run("claude -p --model gpt-9 hi </dev/null", limit=90),)
    assert b"is not allowed here" in refused.out + refused.err, refused.both


@pytest.mark.local
def test_a_broker_of_its_own_has_the_keys_and_can_be_replaced(
    local: None, api: FakeApi, gateway: MakeGateway, user_at: Callable[[Gateway], Ssh], tmp_path: Path
) -> None:
    """The gateway has none. While the broker is away, requests wait."""
    (tmp_path / "secret").write_text("0123456789abcdef" * 4)
    (tmp_path / "key").write_text(CANARY)
    shared = {"listen": f"127.0.0.1:{free_port()}", "secret": str(tmp_path / "secret")}
    models = {"anthropic": {"upstream": api.url, "keys": str(tmp_path / "key")}}
    profiles = {"default": {"models": ["anthropic"]}}
    common: dict[str, Any] = {"models": models, "broker": shared, "profiles": profiles}
    local_only = {"sandbox": {"provider": "local"}, "ssh": {"listen": "127.0.0.1:2222", "drain": "1s"}}
    elsewhere = {"anthropic": {**models["anthropic"], "keys": "/nowhere/key"}}
    user = user_at(gateway("local", **{**common, "models": elsewhere}))
    api.received.clear()
    port = free_port()
    local_only["telemetry"] = {"listen": f"127.0.0.1:{port}", "audit": str(tmp_path / "audit")}
    # Files of the gateways are not where the broker is.
    local_only["access"] = {"user_ca": "/nowhere/ca"}
    with broker_process(tmp_path, {**common, **local_only}):
        assert user.run(f"{ASK} claude-x hi").out.decode().strip() == ANSWER
        assert "sshgate_audit_lost" in Scraped(port).names()
    waiting = user.start(f"{ASK} claude-x later")
    with broker_process(tmp_path, {**common, **local_only}):
        out, err = waiting.communicate(timeout=60)
        assert out.decode().strip() == ANSWER, err
        options = ("-o", "SendEnv=ANTHROPIC_API_KEY")
        user.run(f"{ASK} claude-x hi", options=options, environ={"ANTHROPIC_API_KEY": BROUGHT})
    assert [one.header("x-api-key") for one in api.asked()] == [[CANARY], [CANARY], [BROUGHT]]
    assert CANARY not in (log := (tmp_path / "broker.log").read_text())
    assert BROUGHT not in log
