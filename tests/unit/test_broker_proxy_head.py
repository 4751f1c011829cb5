"""Heads of requests to the proxy: what is read, what is passed on, what is refused."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshgate.broker.proxy_head import BadHead, Connect, Fetch, parse


def head(*lines: str) -> bytes:
    return "\r\n".join((*lines, "", "")).encode("latin-1")


def test_connect_names_a_host_and_a_port() -> None:
    assert parse(head("CONNECT a.example:443 HTTP/1.1", "Host: other.example:1")) == Connect("a.example", 443)
    assert parse(head("CONNECT [::1]:443 HTTP/1.1")) == Connect("[::1]", 443)


def test_a_url_becomes_a_request_for_its_server() -> None:
    found = parse(
        head(
            "GET http://a.example/x?y=1 HTTP/1.1", "Host: other.example", "Proxy-Authorization: Basic x",
            "Connection: keep-alive, x-mine", "X-Mine: 1", "Keep-Alive: 5", "Upgrade: h2c", "Range: bytes=1-",
        )
    )  # fmt: skip
    sent = b"GET /x?y=1 HTTP/1.1\r\nHost: a.example\r\nRange: bytes=1-\r\nConnection: close\r\n\r\n"
    assert found == Fetch("a.example", 80, sent, 0)


@pytest.mark.parametrize(
    ("url", "path", "port"),
    [
        ("http://a.example", "/", 80),
        ("http://a.example?x", "/?x", 80),
        ("HTTP://a.example:8081/", "/", 8081),
    ],
)
def test_urls_without_a_path_have_the_root(url: str, path: str, port: int) -> None:
    found = parse(head(f"GET {url} HTTP/1.0"))
    assert isinstance(found, Fetch)
    assert found.head.startswith(f"GET {path} HTTP/1.1\r\nHost: a.example".encode())
    assert found.port == port


def test_a_body_has_its_length() -> None:
    found = parse(head("POST http://a.example/ HTTP/1.1", "content-length: 12"))
    assert isinstance(found, Fetch)
    assert found.body == 12
    assert b"content-length: 12\r\n" in found.head


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["GET / HTTP/1.1"], 400),
        (["GET https://a.example/ HTTP/1.1"], 400),
        (["GET http://user@a.example/ HTTP/1.1"], 400),
        (["GET http://a.example:0/ HTTP/1.1"], 400),
        (["GET http://a.example:99999/ HTTP/1.1"], 400),
        (["GET http:///x HTTP/1.1"], 400),
        (["GET http://a.example/ HTTP/2"], 400),
        (["GET  http://a.example/ HTTP/1.1"], 400),
        (["get http://a.example/ HTTP/1.1"], 400),
        (["CONNECT a.example HTTP/1.1"], 400),
        (["CONNECT a.example:443:443 HTTP/1.1"], 400),
        (["CONNECT user@a.example:443 HTTP/1.1"], 400),
        (["CONNECT a.example:443/x HTTP/1.1"], 400),
        (["CONNECT a.example:443 HTTP/1.1", "Content-Length: 5"], 400),
        (["CONNECT a.example:443 HTTP/1.1", "Transfer-Encoding: chunked"], 411),
        (["POST http://a.example/ HTTP/1.1", "Transfer-Encoding: chunked"], 411),
        (["POST http://a.example/ HTTP/1.1", "Transfer-Encoding: chunked", "Content-Length: 5"], 411),
        (["POST http://a.example/ HTTP/1.1", "Content-Length: 5", "Content-Length: 5"], 400),
        (["POST http://a.example/ HTTP/1.1", "Content-Length: 5, 5"], 400),
        (["POST http://a.example/ HTTP/1.1", "Content-Length: +5"], 400),
        (["POST http://a.example/ HTTP/1.1", "Content-Length: 0x5"], 400),
        (["POST http://a.example/ HTTP/1.1", "Content-Length : 5"], 400),
        (["GET http://a.example/ HTTP/1.1", "X: a", " folded: b"], 400),
        (["GET http://a.example/ HTTP/1.1", "X: a\rb"], 400),
        (["GET http://a.example/ HTTP/1.1", "X: a\nY: b"], 400),
        (["GET http://a.example/ HTTP/1.1", "X: a\0b"], 400),
        (["GET http://a.example/ HTTP/1.1", "no header"], 400),
        (["GET http://a.example/ HTTP/1.1", *(f"X-{n}: 1" for n in range(101))], 431),
    ],
)
def test_what_two_programs_might_read_differently_is_refused(lines: list[str], status: int) -> None:
    with pytest.raises(BadHead) as refused:
        parse(head(*lines))
    assert refused.value.status == status


@given(st.binary(max_size=300))
def test_no_bytes_do_harm(noise: bytes) -> None:
    for data in (noise, b"GET http://a.example/ HTTP/1.1\r\n" + noise, b"CONNECT " + noise + b" HTTP/1.1"):
        with contextlib.suppress(BadHead):
            parse(data + b"\r\n\r\n")


@pytest.mark.parametrize(
    "line",
    [
        b"GET http://" + b"a" * 30_000 + b"# HTTP/1.1",
        b"GET http://a/ HTTP/1.1\r\nX: " + b" " * 30_000 + b"\0",
        b"GET http://a/ HTTP/1.1\r\nX:" + b" a" * 15_000 + b"\0",
        b"CONNECT " + b"a" * 30_000 + b":443: HTTP/1.1",
        b"A" * 30_000,
    ],
)
def test_no_text_takes_long_to_refuse(line: bytes) -> None:
    began = time.process_time()
    with pytest.raises(BadHead):
        parse(line + b"\r\n\r\n")
    assert time.process_time() - began < 1, "an expression goes back and forth over the text"
