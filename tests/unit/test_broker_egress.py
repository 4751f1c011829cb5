"""The proxy of a sandbox, over real sockets, in front of servers that stand in for the internet."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from sshgate.broker import egress, outside
from sshgate.broker.addresses import Address
from sshgate.broker.hello import UNRECOGNIZED_NAME
from sshgate.broker.outside import LOOKUPS, Lookups, SystemResolver
from tests.unit.outside_world import LOOPBACK, Names, Proxy, authority, proxy, web_server
from tests.unit.test_broker_hello import hello_of, made, server_names

NAME = "packages.example"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    root.mkdir()
    (root / "file").write_text("from outside\n")
    return root


@contextlib.asynccontextmanager
async def echo() -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that sends back what it gets, and remembers it by connection."""
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(b"")
        place = len(got) - 1
        while data := await reader.read(65536):
            got[place] += data
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], got
    finally:
        server.close()
        await server.wait_closed()


async def fetched(one: Proxy, port: int, ca: Path, sni: str = NAME) -> bytes:
    answer, reader, writer = await one.ask(f"CONNECT {NAME}:{port} HTTP/1.1")
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    context = ssl.create_default_context(cafile=str(ca))
    await writer.start_tls(context, server_hostname=sni)
    writer.write(b"GET /file HTTP/1.0\r\n\r\n")
    content = await reader.read()
    writer.close()
    return content


async def test_a_listed_name_is_reached_by_tls(tmp_path: Path, site: Path) -> None:
    ca, context = authority(tmp_path, [NAME])
    with web_server(site, context) as port:
        async with proxy([f"{NAME}:{port}"], {NAME: [["127.0.0.1"]]}) as one:
            assert b"from outside" in await fetched(one, port, ca)
            await asyncio.sleep(0.05)
            assert one.judged == [(NAME, port, None)]
            (ended,) = [attempt for attempt in one.attempts if attempt.ended]
            assert ended.bytes_up > 200
            assert ended.bytes_down > 500


async def test_other_spellings_of_the_same_name_are_the_name(tmp_path: Path, site: Path) -> None:
    ca, context = authority(tmp_path, [NAME])
    with web_server(site, context) as port:
        async with proxy([f"{NAME}:{port}"], {NAME: [["127.0.0.1"]]}) as one:
            for sent in (NAME.upper(), f"{NAME}.", "Packages.EXAMPLE."):
                answer, reader, writer = await one.ask(f"CONNECT {sent}:{port} HTTP/1.1")
                assert answer.startswith(b"HTTP/1.1 200 ")
                await writer.start_tls(ssl.create_default_context(cafile=str(ca)), server_hostname=NAME)
                writer.write(b"GET /file HTTP/1.0\r\n\r\n")
                assert b"from outside" in await reader.read()
                writer.close()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("evil.example:443", "not listed"),
        ("x.packages.example:443", "not listed"),
        ("packages.example.evil.example:443", "not listed"),
        ("packages.example:22", "not listed"),
        ("packages.example:80", "not listed"),
        ("xn--pckages-5wa.example:443", "not listed"),
        ("127.0.0.1:443", "no name"),
        ("2130706433:443", "no name"),
        ("0x7f000001:443", "no name"),
        ("0177.0.0.1:443", "no name"),
        ("127.1:443", "no name"),
        ("[::1]:443", "no name"),
        ("[::ffff:127.0.0.1]:443", "no name"),
        ("[64:ff9b::7f00:1]:443", "no name"),
        ("169.254.169.254:443", "no name"),
        ("packages.example..:443", "no name"),
    ],
)
async def test_what_is_not_listed_is_refused_and_reported(target: str, words: str) -> None:
    async with proxy([NAME], {NAME: [["127.0.0.1"]]}) as one:
        answer, reader, writer = await one.ask(f"CONNECT {target} HTTP/1.1")
        body = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert [refused for *_, refused in one.judged] == [words]
        assert one.names.asked == [], "nothing may be looked up for it"
        if words == "not listed":
            name, _, port = target.rpartition(":")
            entry = name if port == "443" else target
            assert f'profiles.default.egress.allow: ["{entry}"]'.encode() in body
            assert f'"{entry}"'.encode() in answer.partition(b"\r\n")[0]


@pytest.mark.parametrize(
    "answers",
    [
        ["10.0.0.1"],
        ["169.254.169.254"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["2002:7f00:1::"],
        ["fd00:ec2::254"],
        ["93.184.216.34", "10.0.0.1"],
        ["10.0.0.1", "93.184.216.34"],
    ],
)
async def test_a_name_that_stands_for_a_private_address_is_refused(answers: list[str]) -> None:
    async with proxy([NAME], {NAME: [answers]}, private=()) as one:
        answer, reader, writer = await one.ask(f"CONNECT {NAME}:443 HTTP/1.1")
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert b"which is no public address" in await reader.read()
        writer.close()
        assert one.judged == [(NAME, 443, "private address")]


async def test_the_address_that_was_judged_is_the_one_that_is_dialled(tmp_path: Path, site: Path) -> None:
    """The name server answers with another address the next time: nobody asks it again."""
    ca, context = authority(tmp_path, [NAME])
    with web_server(site, context) as port:
        names = {NAME: [["127.0.0.1"], ["169.254.169.254"]]}
        async with proxy([f"{NAME}:{port}"], names) as one:
            assert b"from outside" in await fetched(one, port, ca)
            assert one.names.asked == [NAME]
            answer, _, writer = await one.ask(f"CONNECT {NAME}:{port} HTTP/1.1")
            writer.close()
            assert answer.startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize(
    ("first", "words", "reply"),
    [
        (hello_of("evil.example"), "other TLS name", UNRECOGNIZED_NAME),
        (hello_of(f"x.{NAME}"), "other TLS name", UNRECOGNIZED_NAME),
        (hello_of(None), "no TLS name", UNRECOGNIZED_NAME),
        (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", "no TLS", b""),
        (b"SSH-2.0-OpenSSH\r\n", "no TLS", b""),
        (b"\x16\x03\x01\xff\xff" + bytes(9000), "no TLS", b""),
    ],
)
@pytest.mark.parametrize("pipelined", [True, False])
async def test_nothing_but_tls_for_the_name_goes_through(
    first: bytes, words: str, reply: bytes, pipelined: bool
) -> None:
    async with echo() as (port, got), proxy([f"{NAME}:{port}"], {NAME: [["127.0.0.1"]]}) as one:
        answer, reader, writer = await one.ask(f"CONNECT {NAME}:{port} HTTP/1.1", first if pipelined else b"")
        assert answer.startswith(b"HTTP/1.1 200 ")
        if not pipelined:
            for at in range(0, min(len(first), 600), 7):
                writer.write(first[at : at + 7])
                await asyncio.sleep(0)
            writer.write(first[600:])
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 20) == reply
        writer.close()
        await asyncio.sleep(0.05)
        assert b"".join(got) == b"", "not a byte may reach the server"
        assert one.judged == [(NAME, port, words)]


async def test_bytes_after_connect_reach_the_server_once_they_have_passed() -> None:
    sent = hello_of(NAME) + b"\x17\x03\x03\0\x05early"
    async with echo() as (port, got), proxy([f"{NAME}:{port}"], {NAME: [["127.0.0.1"]]}) as one:
        _, reader, writer = await one.ask(f"CONNECT {NAME}:{port} HTTP/1.1", sent)
        assert await reader.readexactly(len(sent)) == sent
        writer.write(b"more")
        assert await reader.readexactly(4) == b"more"
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        assert got == [sent + b"more"]


CHANGE = b"\x14\x03\x03\0\x01\x01"
EARLY = b"\x17\x03\x03\0\x05early"


def with_early_data(name: str) -> bytes:
    return made(server_names(name.encode()) + b"\0\x2a\0\0")


@pytest.mark.parametrize("pipelined", [True, False])
@pytest.mark.parametrize(
    ("first", "between"),
    [(hello_of(NAME), b""), (hello_of(NAME), CHANGE), (with_early_data(NAME), EARLY + EARLY + CHANGE)],
    ids=["at once", "after a change of ciphers", "after early data"],
)
async def test_a_second_hello_is_looked_at_as_the_first(first: bytes, between: bytes, pipelined: bool) -> None:
    """A server may ask for one (HelloRetryRequest), and goes by the name in it."""
    async with echo() as (port, got), proxy([f"{NAME}:{port}"], {NAME: [["127.0.0.1"]]}) as one:
        for name, words in ((NAME, None), ("evil.example", "other TLS name")):
            second = hello_of(name)
            _, reader, writer = await one.ask(
                f"CONNECT {NAME}:{port} HTTP/1.1", first + between + second if pipelined else b""
            )
            if not pipelined:
                writer.write(first)
                assert await reader.readexactly(len(first)) == first
                for byte in between + second:
                    writer.write(bytes([byte]))
                    await asyncio.sleep(0)
            rest = (b"" if not pipelined else first) + between
            if words is None:
                assert await reader.readexactly(len(rest + second)) == rest + second
                assert one.judged == [(NAME, port, None)]
            else:
                with contextlib.suppress(ConnectionError):
                    assert UNRECOGNIZED_NAME in await asyncio.wait_for(reader.read(), 20)
                assert one.judged[-1] == (NAME, port, words)
                assert [attempt.tls_name for attempt in one.attempts if attempt.refused] == [name]
                assert second[:20] not in got[-1]
            writer.close()
            await asyncio.sleep(0.05)


async def test_what_is_no_request_is_reported() -> None:
    async with proxy([NAME], {}) as one:
        _, _, writer = await one.ask("GET /file HTTP/1.1")
        writer.close()
        assert one.judged == [("(none)", 0, "no request")]


async def test_a_plain_request_reaches_its_server_and_no_second_one_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with echo() as (port, got), proxy([f"{NAME}:{port}"], {NAME: [["127.0.0.1"]]}) as one:
        monkeypatch.setattr(egress, "HTTP", port)  # 80 is for root
        smuggled = b"GET http://evil.example/ HTTP/1.1\r\n\r\n"
        reader, writer = await one.open()
        head = f"POST http://{NAME}:{port}/x HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 4\r\n\r\n"
        writer.write(head.encode() + b"body" + smuggled)
        wanted = (
            f"POST /x HTTP/1.1\r\nHost: {NAME}:{port}\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody".encode()
        )
        assert await reader.readexactly(len(wanted)) == wanted
        await asyncio.sleep(0.05)
        writer.close()
        await asyncio.sleep(0.05)
        assert got == [wanted]
        assert one.judged == [(NAME, port, None)]


async def test_a_file_is_fetched_by_http(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with web_server(site) as port:
        monkeypatch.setattr(egress, "HTTP", port)
        async with proxy([f"{NAME}:{port}"], {NAME: [["127.0.0.1"]]}) as one:
            answer, reader, writer = await one.ask(f"GET http://{NAME}:{port}/file HTTP/1.1\r\nHost: {NAME}")
            assert b" 200 OK" in answer
            assert await reader.read() == b"from outside\n"
            writer.close()


@pytest.mark.parametrize(
    "target", ["http://169.254.169.254/latest/meta-data/", "http://evil.example/", f"http://{NAME}/"]
)
async def test_plain_requests_need_their_port_on_the_list(target: str) -> None:
    async with proxy([NAME], {NAME: [["127.0.0.1"]]}) as one:
        answer, _, writer = await one.ask(f"GET {target} HTTP/1.1")
        writer.close()
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert one.names.asked == []


@pytest.mark.parametrize("port", ["", ":8443"])
async def test_plain_requests_go_to_no_other_port_than_80(port: str) -> None:
    async with proxy([f"{NAME}{port}"], {NAME: [["127.0.0.1"]]}) as one:
        answer, reader, writer = await one.ask(f"GET http://{NAME}{port or ':443'}/ HTTP/1.1")
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert f"https://{NAME}{port}/".encode() in await reader.read()
        writer.close()
        assert [refused for *_, refused in one.judged] == ["no TLS"]
        assert one.names.asked == []


async def test_there_is_no_tunnel_to_the_port_of_plain_http() -> None:
    """Through it anything could pass, such as another host's name in a second request."""
    async with proxy([f"{NAME}:80"], {NAME: [["127.0.0.1"]]}) as one:
        answer, reader, writer = await one.ask(f"CONNECT {NAME}:80 HTTP/1.1")
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert f"http://{NAME}/".encode() in await reader.read()
        writer.close()
        assert one.judged == [(NAME, 80, "no TLS")]
        assert one.names.asked == []


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET /file HTTP/1.1", 400),
        (f"CONNECT {NAME} HTTP/1.1", 400),
        ("GET http://x/ HTTP/1.1\r\nX: " + "a" * 40_000, 431),
    ],
)
async def test_a_malformed_request_is_answered(head: str, status: int) -> None:
    async with proxy([NAME], {}) as one:
        answer, _, writer = await one.ask(head)
        writer.close()
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())


async def test_a_server_that_is_not_there_is_no_refusal() -> None:
    async with echo() as (port, _):
        pass
    async with proxy([f"{NAME}:{port}", "nowhere.example"], {NAME: [["127.0.0.1", "127.0.0.2"]]}) as one:
        answer, reader, writer = await one.ask(f"CONNECT {NAME}:{port} HTTP/1.1")
        assert answer.startswith(b"HTTP/1.1 502 ")
        assert b"does not answer" in await reader.read()
        writer.close()
        answer, reader, writer = await one.ask("CONNECT nowhere.example:443 HTTP/1.1")
        assert b"has no address" in await reader.read()
        writer.close()
        assert one.judged == [(NAME, port, None), ("nowhere.example", 443, None)]


def test_both_families_of_addresses_are_tried() -> None:
    six, four = [ip_address(f"2600::{one}") for one in range(1, 7)], [ip_address("93.184.216.34")]
    assert outside._by_turns([*six, *four])[:3] == [six[0], four[0], six[1]]
    assert outside._by_turns([*four, *six])[:3] == [four[0], six[0], six[1]]


async def test_a_profile_without_egress_refuses_everything() -> None:
    async with proxy([], {}, LOOPBACK) as one:
        answer, _, writer = await one.ask(f"CONNECT {NAME}:443 HTTP/1.1")
        writer.close()
        assert answer.startswith(b"HTTP/1.1 403 ")


async def test_the_search_list_is_never_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """`api.example` that does not exist must not become `api.example.corp.example`."""
    asked = []
    look_up = socket.getaddrinfo

    def note(name: str, *rest: Any, **more: Any) -> Any:
        asked.append(name)
        return look_up(name, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", note)
    resolve = SystemResolver()
    try:
        with pytest.raises(OSError, match=r"Errno"):
            await resolve("nowhere.invalid")
    finally:
        resolve.close()
    assert asked == ["nowhere.invalid."]


async def test_the_machines_file_of_hosts_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "HOSTS", tmp_path / "hosts")
    (tmp_path / "hosts").write_text(
        "# 10.0.0.9 mirror.example\n10.0.0.1\tMirror.example other # x\nfe80::1%eth0 mirror.example\nx mirror.example"
    )
    resolve = SystemResolver()
    try:
        assert [str(one) for one in await resolve("mirror.example")] == ["10.0.0.1", "fe80::1"]
    finally:
        resolve.close()


async def test_the_machines_own_resolver_finds_addresses() -> None:
    resolve = SystemResolver()
    try:
        assert {str(one) for one in await resolve("localhost")} & {"127.0.0.1", "::1"}
        with pytest.raises(OSError, match=r"Errno"):
            await resolve("nowhere.invalid")
    finally:
        resolve.close()


def _slow_lookups() -> tuple[Lookups, list[str], asyncio.Event]:
    """Look-ups, the names that were asked for, and what answers those that begin with ``slow``."""
    never = asyncio.Event()
    asked: list[str] = []

    async def resolve(name: str) -> list[Address]:
        asked.append(name)
        if name.startswith("slow"):
            await never.wait()
        return [ip_address("127.0.0.1")]

    return Lookups(resolve), asked, never


async def test_names_that_nobody_answers_hold_up_no_other_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "LOOKUP_SECONDS", 0.5)
    lookups, asked, never = _slow_lookups()
    slow = [asyncio.create_task(lookups.of(f"slow{number}.example", "eve")) for number in range(100)]
    await asyncio.sleep(0.05)
    assert len(asked) < LOOKUPS, "there is room for others"
    assert list(await lookups.of("a.example", "ada")) == [ip_address("127.0.0.1")]
    assert {tuple(found) for found in await asyncio.gather(*slow)} == {()}
    assert list(await lookups.of("b.example", "ada")) == [ip_address("127.0.0.1")]
    never.set()


async def test_who_waits_for_a_place_keeps_no_other_user_from_the_name_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outside, "LOOKUP_SECONDS", 0.5)
    lookups, asked, never = _slow_lookups()
    waiting = [asyncio.create_task(lookups.of(f"slow{number}.example", "eve")) for number in range(50)]
    waiting.append(asyncio.create_task(lookups.of("a.example", "eve")))
    await asyncio.sleep(0.05)
    assert list(await lookups.of("a.example", "ada")) == [ip_address("127.0.0.1")]
    await asyncio.gather(*waiting)
    # Nobody waits for the others any more.
    begun = list(asked)
    never.set()
    await asyncio.sleep(0.05)
    assert asked == begun
    assert repr(lookups).startswith("<Lookups of 0 names")


async def test_a_name_is_looked_up_once_for_all_who_ask_at_the_same_time() -> None:
    names = Names({"a.example": [["127.0.0.1"]]})
    lookups = Lookups(names)
    found = await asyncio.gather(*(lookups.of("a.example", user) for user in ("ada", "eve", "ada")))
    assert [list(one) for one in found] == [[ip_address("127.0.0.1")]] * 3
    assert names.asked == ["a.example"]
