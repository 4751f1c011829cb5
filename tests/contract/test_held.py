"""Sessions that the resident of a sandbox keeps, on both providers: they outlive their execs."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import secrets
import time
from dataclasses import replace

import pytest

from sshgate.config.model import Profile
from sshgate.config.values import given_name
from sshgate.errors import LimitReached
from sshgate.hold import line, listing
from sshgate.hold.answers import GONE
from sshgate.hold.frames import HELLO, Kind
from sshgate.hold.line import Line, NoResident, OtherVersion, park_resident
from sshgate.hold.process import HeldProcess
from sshgate.hold.wishes import SCREEN, SCREEN_HEAD, Wish
from sshgate.providers.local.provider import LocalProvider
from sshgate.sandbox.interfaces import Order, Provider, Sandbox
from sshgate.sandbox.launcher import Program
from sshgate.sandbox.side_execs import DISMISS_SECONDS, dismiss
from sshgate.session.subsystems.held_sessions import HeldSessions
from sshgate.stream.interfaces import Break, Exec, Exited, Lost, Request, Resize, Shell, Signal, Signalled
from sshgate.stream.terminal import Terminal, TerminalSize
from tests.contract.kubernetes_namespace import BUSYBOX, namespace
from tests.contract.programs import run
from tests.rig.cluster import IMAGE, RUNTIME_CLASS

AUTO = Wish("auto", source="192.0.2.1")
NEW = Wish("new")
# The length of the numbers from 1 to 13,000,000, a line each.
LENGTH = 9 * 2 + 90 * 3 + 900 * 4 + 9_000 * 5 + 90_000 * 6 + 900_000 * 7 + 9_000_000 * 8 + 3_000_001 * 9
OTHER = HELLO.replace(b"2", b"1")


async def alive() -> bool:
    return True


async def silent() -> bool:
    await asyncio.sleep(3600)
    return False


def program(command: bytes = b"", columns: int = 80) -> Program:
    return Program(Request(Exec(command) if command else Shell(), Terminal("xterm", TerminalSize(columns, 24))))


class Client:
    """One client of a held session, with what it has got."""

    def __init__(self, process: HeldProcess) -> None:
        self.process = process
        self.shown = bytearray()

    async def until(self, text: bytes) -> None:
        async with asyncio.timeout(30):
            found = text in self.shown
            while not found:
                chunk = await self.process.read()
                assert chunk is not None, self.shown
                self.shown += chunk[1]
                found = text in self.shown[-len(chunk[1]) - len(text) :]

    async def everything(self) -> None:
        async with asyncio.timeout(60):
            while (chunk := await self.process.read()) is not None:
                self.shown += chunk[1]


async def come(
    sandbox: Sandbox, command: bytes = b"", wish: Wish = AUTO, columns: int = 80, lives: bool = True
) -> Client:
    process = await HeldProcess.attach(sandbox, wish, alive if lives else silent)
    await process.launch(program(command, columns))
    return Client(process)


async def listed(sandbox: Sandbox) -> list[dict[str, object]]:
    found: list[bytes] = []

    def take(kind: int, payload: bytes) -> list[None]:
        assert kind == Kind.LISTED
        found.append(payload)
        return []

    asked = await Line.open(sandbox)
    asked.send(Kind.LIST)
    while not found:
        assert await asked.read(take)  # type: ignore[arg-type]
    await asked.close()
    value: list[dict[str, object]] = json.loads(found[0])
    return value


async def test_a_session_goes_on_without_its_client_and_is_joined_again(sandbox: Sandbox) -> None:
    first = await come(sandbox)
    assert first.process.made
    await first.process.write(b"echo mark-$((40+2)); (sleep 1; echo later-$((1+1))) & \n")
    await first.until(b"mark-42")
    await first.process.close()
    await asyncio.sleep(1.5)
    again = await come(sandbox)
    assert not again.process.made
    assert (again.process.name, again.process.pid) == (first.process.name, first.process.pid)
    await again.until(b"later-2")
    assert b"mark-42" in again.shown
    await again.process.write(b"exit 7\n")
    await again.everything()
    assert await again.process.wait() == Exited(7)
    await again.process.close()


async def test_its_terminal_is_one(sandbox: Sandbox) -> None:
    client = await come(sandbox, b"tty; stty size; echo $TERM $SSH_TTY; exit 3", columns=123)
    await client.everything()
    assert await client.process.wait() == Exited(3)
    tty, size, term = client.shown.decode().split("\r\n")[:3]
    assert re.fullmatch(r"/dev/pts/\d+", tty)
    assert (size, term) == ("24 123", f"xterm {tty}")
    await client.process.close()


async def test_a_large_environment_reaches_it(sandbox: Sandbox) -> None:
    values = {f"LARGE{number}": b"\xc3\xa9" * 60_000 for number in range(4)}
    process = await HeldProcess.attach(sandbox, NEW, alive)
    await process.launch(replace(program(b"printenv LARGE3 | wc -c"), environment=values))
    client = Client(process)
    await client.everything()
    assert client.shown == b"120001\r\n"
    await process.close()


async def test_the_last_active_client_decides_the_size(sandbox: Sandbox) -> None:
    script = b"echo up; while :; do stty size; sleep 0.1; done"
    wide = await come(sandbox, script, columns=120)
    await wide.until(b"up")
    narrow = await come(sandbox, wish=Wish("named", wide.process.name), columns=60)
    await wide.until(b"24 60")
    wide.shown = bytearray()
    await wide.process.write(b"\n")
    await wide.until(b"24 120")
    await narrow.process.control(Resize(TerminalSize(50, 10)))
    await wide.until(b"10 50")
    await narrow.process.close()
    await wide.until(
        b"24 120",
    )
    await wide.process.close()


async def test_signals_and_a_break_reach_it(sandbox: Sandbox) -> None:
    client = await come(
        sandbox, b"trap 'echo got-usr1' USR1; trap 'echo got-int; exit 9' INT; echo up; while :; do sleep 0.1; done"
    )
    await client.until(b"up")
    await client.process.control(Signal("USR1"))
    await client.until(b"got-usr1")
    await client.process.control(Break())
    await client.everything()
    assert b"got-int" in client.shown
    await client.process.close()
    killed = await come(sandbox, b"kill -9 $$")
    await killed.everything()
    assert await killed.process.wait() == Signalled("KILL")
    await killed.process.close()


async def test_a_silent_client_is_given_up_when_somebody_logs_in_and_a_living_one_is_not(sandbox: Sandbox) -> None:
    gone = await come(sandbox, lives=False)
    back = await come(sandbox)
    assert back.process.name == gone.process.name
    other = await come(sandbox)
    assert other.process.made
    assert other.process.name != back.process.name
    for one in (gone, back, other):
        await one.process.close()


async def test_the_end_of_a_session_that_nobody_saw_is_reported_once(sandbox: Sandbox) -> None:
    left = await come(sandbox, b"echo up; read x; sleep 1; exit 5", wish=Wish("named", "build"))
    await left.until(b"up")
    await left.process.write(b"\n")
    await left.process.close()
    async with asyncio.timeout(10):
        while not any(one["status"] == ["exit", 5] for one in await listed(sandbox)):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    again = await come(sandbox)
    assert [(one.name, one.ending) for one in again.process.past] == [("build", "status 5")]
    await again.process.report(*(one.id for one in again.process.past))
    third = await come(sandbox, wish=NEW)
    assert third.process.past == []
    await again.process.close()
    await third.process.close()


async def test_there_is_a_limit(sandbox: Sandbox) -> None:
    first = await come(sandbox, wish=Wish("new", most=1))
    second = await HeldProcess.attach(sandbox, Wish("new", most=1), alive)
    with pytest.raises(LimitReached, match="has 1 sessions"):
        await second.launch(program())
    await second.close()
    await first.process.close()


async def test_output_and_input_go_on_exactly_once_when_the_exec_is_lost(sandbox: Sandbox) -> None:
    """The client's process stays, while its exec is cut again and again under output and typing."""
    script = (
        b"stty -echo; echo up; i=0; while [ $i -lt 3000 ]; do echo line $i of some output; i=$((i+1)); "
        b"[ $((i%100)) = 0 ] && sleep 0.1; done; echo typed; head -n 200 | sha256sum; echo over"
    )
    client = await come(sandbox, script)
    await client.until(b"up")
    typed = [b"typed line %d\n" % number for number in range(200)]

    async def type_all() -> None:
        for one in typed:
            await client.process.write(one)
            await asyncio.sleep(0.01)

    async def cut() -> None:
        for _ in range(3):
            await asyncio.sleep(1)
            line = client.process._line
            if line is not None:
                await line._process.close()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(type_all())
        tasks.create_task(cut())
        await client.until(b"over")
    shown = client.shown.decode().replace("\r\n", "\n")
    shown = re.sub(r"\nsshgate: [^\n]*\n", "", shown)
    lines = [one for one in shown.splitlines() if one.startswith("line ")]
    assert lines == [f"line {number} of some output" for number in range(3000)]
    assert hashlib.sha256(b"".join(typed)).hexdigest() in shown
    await client.everything()
    assert await client.process.wait() == Exited(0)
    await client.process.close()


async def test_a_resident_that_its_user_kills_ends_its_sessions_with_a_sentence(sandbox: Sandbox) -> None:
    client = await come(sandbox, b"echo up; read x")
    await client.until(b"up")
    await run(sandbox, b"for p in /proc/[0-9]*; do grep -aq '#sshgate-hol[d]' $p/cmdline && kill -9 ${p#/proc/}; done")
    await client.everything()
    assert await client.process.wait() == Lost(GONE)
    await client.process.close()
    fresh = await come(sandbox)
    assert fresh.process.made
    await fresh.process.close()


async def test_a_hundred_megabytes_pour_out_while_a_client_comes(sandbox: Sandbox) -> None:
    """What it gets is the output from the offset of its screen on; others have their turns meanwhile."""
    first = await come(sandbox, b"stty -opost; seq 1 13000000; read x", wish=Wish("named", "pours"))
    await first.until(b"100000\n")
    await first.process.close()
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            began = time.monotonic()
            await asyncio.sleep(0)
            longest = max(longest, time.monotonic() - began)

    ticking = asyncio.create_task(tick())
    again = await HeldProcess.attach(sandbox, Wish("named", "pours", placed=True), alive)
    await again.launch(program())
    offset, found, count = 0, hashlib.sha256(), 0
    async with asyncio.timeout(60):
        while offset + count < LENGTH:
            chunk = await again.read()
            assert chunk is not None
            if chunk[0] == SCREEN:
                assert not count
                offset = SCREEN_HEAD.unpack_from(chunk[1])[0]
            else:
                found.update(chunk[1])
                count += len(chunk[1])
    ticking.cancel()
    assert not again.made
    assert 0 < offset < LENGTH
    every = await asyncio.to_thread(lambda: "".join(f"{number}\n" for number in range(1, 13_000_001)).encode())
    assert (len(every), found.digest()) == (LENGTH, hashlib.sha256(every[offset:]).digest())
    assert longest < 1, "the loop was not held up"
    await again.write(b"\n")
    async with asyncio.timeout(20):
        while await again.read():
            pass
    assert await again.wait() == Exited(0)
    await again.close()


async def test_ten_clients_come_and_go_and_who_stays_loses_nothing(sandbox: Sandbox) -> None:
    count = b"stty -opost; for i in $(seq 1 500); do echo line $i of the output; sleep 0.01; done; read x"
    stays = await come(sandbox, count, wish=Wish("named", "work"))
    until = time.monotonic() + 5

    async def come_and_go(number: int) -> int:
        times = 0
        while time.monotonic() < until:
            one = await come(sandbox, wish=Wish("named", "work"), columns=60 + number)
            await one.until(b"line ")
            await one.process.close()
            times += 1
        return times

    times = await asyncio.gather(*(come_and_go(number) for number in range(10)))
    assert min(times) > 0
    await stays.until(b"line 500 of the output\n")
    assert stays.shown.decode().splitlines() == [f"line {number} of the output" for number in range(1, 501)]
    async with asyncio.timeout(10):
        while [one.state for one in await listing.sessions(sandbox)] != ["attached from "]:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    await stays.process.write(b"\n")
    await stays.everything()
    assert await stays.process.wait() == Exited(0)
    await stays.process.close()


async def test_after_an_upgrade_sessions_of_the_other_version_are_named_and_can_be_ended(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(line, "SOURCE", line.SOURCE.replace(HELLO.strip(), OTHER.strip()))
        older.setattr(line, "HELLO", OTHER)
        old = await come(sandbox, b"echo up; sleep 600", wish=Wish("named", "build"))
        await old.until(b"up")
        await old.process.close()
    with pytest.raises(OtherVersion, match=r"sessions of another version of sshgate run in the sandbox \(build\)"):
        await come(sandbox)
    assert [(one.name, one.state) for one in await listing.sessions(sandbox)] == [("build", "detached")]
    with pytest.raises(OtherVersion, match="another version of sshgate keeps this session"):
        await Line.find(sandbox, joins=True)
    assert await listing.end(sandbox, "build")
    fresh = await come(sandbox, b"echo new; read x")  # what keeps nothing any more is replaced
    await fresh.until(b"new")
    await fresh.process.close()
    again = await come(sandbox)
    assert again.process.name == fresh.process.name
    await again.process.close()


async def test_a_resident_that_waits_has_nobody_until_a_login_takes_it_or_it_is_let_go(sandbox: Sandbox) -> None:
    parked = await park_resident(sandbox)
    assert parked is not None
    assert await listed(sandbox) == []
    taken = HeldProcess(sandbox, Line(parked, b""), NEW, alive)
    await taken.launch(program(b"echo up; exit 3"))
    client = Client(taken)
    await client.until(b"up")
    await client.everything()
    assert await taken.wait() == Exited(3)
    await taken.close()
    unused = await park_resident(sandbox)
    assert unused is not None
    async with asyncio.timeout(DISMISS_SECONDS - 1):
        await dismiss(unused)
    again = await come(sandbox, b"echo here; read x")  # although the one before is just ending
    await again.until(b"here")
    await again.process.close()


async def test_an_end_of_which_its_client_did_not_know_is_reported_to_the_next(sandbox: Sandbox) -> None:
    """Its client left at the moment of its end: the gateway got the status, and the client did not."""
    leaves = await come(sandbox, b"exit 5", wish=Wish("named", "build"))
    await leaves.everything()
    assert await leaves.process.wait() == Exited(5)
    await leaves.process.close()
    async with asyncio.timeout(20):  # until the resident has noticed that it left
        while not (left := await listed(sandbox)):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert [(one["name"], one["status"]) for one in left] == [("build", ["exit", 5])]
    stays = await come(sandbox, b"exit 6", wish=Wish("named", "other"))
    assert [(one.name, one.ending) for one in stays.process.past] == [("build", "status 5")]
    await stays.everything()
    await stays.process.report()
    await stays.process.close()
    assert [(one["name"], one["status"]) for one in await listed(sandbox)] == [("build", ["exit", 5])]


async def test_sessions_are_looked_at_without_a_use_of_the_sandbox(provider: Provider) -> None:
    profile = Profile(image=IMAGE, runtime_class=RUNTIME_CLASS)
    order = Order(profile, "alice", secrets.token_hex(5), secrets.token_hex(3))
    assert await provider.named.find(order) is None
    attachment = await provider.named.join(order, lambda text: None, lambda: lambda: None)
    client = await come(attachment.sandbox, b"echo up; sleep 60", wish=Wish("named", "build"))
    await client.until(b"up")
    await client.process.close()
    await attachment.leave(returns=True)
    async with asyncio.timeout(20):
        while [one.state for one in await provider.named.list("alice")] != ["detached"]:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        found = await provider.named.find(order)
        assert found is not None
        assert [one.name for one in await listing.sessions(found)] == ["build"]
    assert [one.state for one in await provider.named.list("alice")] == ["detached"]
    back, kept = await provider.named.join(order, lambda text: None, lambda: lambda: None), None
    if not isinstance(provider, LocalProvider):  # an exec waits for who comes back
        async with asyncio.timeout(20):
            while (kept := back.sandbox.parked("kept")) is None:
                await back.leave(returns=True)
                await asyncio.sleep(1)
                back = await provider.named.join(order, lambda text: None, lambda: lambda: None)
        assert await Line(kept, b"").answers()
        await kept.close()
        assert not await Line(kept, b"").answers()
    again = await come(back.sandbox)
    assert again.process.name == "build"
    await again.process.close()
    await back.leave()
    await provider.named.end("alice", order.name or "")


async def test_a_sandbox_that_the_gateway_named_stays_for_others_and_for_a_session_that_was_not_found(
    provider: Provider,
) -> None:
    profile = Profile(image=IMAGE, runtime_class=RUNTIME_CLASS)
    order = Order(profile, "alice", secrets.token_hex(5), given_name(secrets.token_bytes(5)))
    name = order.name or ""
    attachment = await provider.named.join(order, lambda text: None, lambda: lambda: None)
    sandbox = attachment.sandbox
    assert not await listing.others(sandbox)
    held = HeldSessions(provider, lambda: {profile.name: profile})
    assert not await held.end("alice", name, "other")
    assert provider.named.profile("alice", name) is not None
    client = await come(sandbox, b"echo up; sleep 60", wish=Wish("named", "build"))
    await client.until(b"up")
    assert await listing.others(sandbox)
    assert await listing.others(sandbox, "other")
    assert not await listing.others(sandbox, "build")
    assert await listing.running(sandbox, "build"), "a client is in it"
    await listing.end_detached(sandbox, "build")
    await client.process.close()
    assert not await listing.running(sandbox, "build")
    assert await held.end("alice", name, "build")
    await attachment.leave()
    assert provider.named.profile("alice", name) is None


@pytest.mark.cluster
async def test_an_image_without_python3_says_so() -> None:
    async with namespace() as place, place.provider() as provider:
        made = await provider.create(Order(Profile(image=BUSYBOX), "alice", secrets.token_hex(5)), lambda text: None)
        with pytest.raises(NoResident, match="no python3 that could keep sessions; install python3 in its image"):
            await listing.sessions(made)
        with pytest.raises(NoResident):
            await HeldProcess.attach(made, NEW, alive)
        await made.delete()
