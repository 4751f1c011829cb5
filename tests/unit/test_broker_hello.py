"""The name in a TLS ClientHello, as OpenSSL sends it, in any pieces, and what else may stand there."""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshgate.broker.hello import LONGEST_HELLO, Hello, NotTls, SecondHello, client_hello
from tests.unit.outside_world import authority


def hello_of(name: str | None) -> bytes:
    """The first bytes of OpenSSL's own client."""
    context = ssl.create_default_context()
    if name is None:
        context.check_hostname = False
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def records(message: bytes, size: int) -> bytes:
    """A handshake message in TLS records of so many bytes."""
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2) + piece for piece in pieces)


def made(extensions: bytes) -> bytes:
    """A ClientHello with these extensions, in one record."""
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\x13\x01" + b"\x01\0" + len(extensions).to_bytes(2) + extensions
    return records(b"\x01" + len(body).to_bytes(3) + body, LONGEST_HELLO)


def server_names(*names: bytes, kind: int = 0) -> bytes:
    listed = b"".join(bytes([kind]) + len(name).to_bytes(2) + name for name in names)
    body = len(listed).to_bytes(2) + listed
    return b"\0\0" + len(body).to_bytes(2) + body


def test_openssls_name_is_found() -> None:
    assert client_hello(hello_of("packages.example")) == Hello("packages.example")
    assert client_hello(hello_of(None)) == Hello(None)


def test_the_name_is_found_once_the_hello_is_whole_and_not_before() -> None:
    whole = hello_of("packages.example")
    assert all(client_hello(whole[:size]) is None for size in range(len(whole)))


@given(st.integers(1, 600))
def test_it_may_come_in_many_records(size: int) -> None:
    message = hello_of("packages.example")[5:]
    whole = records(message, size)
    if len(message) / size <= 64:
        assert client_hello(whole) == Hello("packages.example")
        assert client_hello(whole[:-1]) is None
    else:
        with pytest.raises(NotTls):
            client_hello(whole)


def test_bytes_that_follow_in_other_records_do_not_matter() -> None:
    """0-RTT data, or an alert."""
    assert client_hello(hello_of("packages.example") + b"\x17\x03\x03\0\x01x") == Hello("packages.example")


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"SSH-2.0-x\r\n",
        b"\x16\x04\x01",
        b"\x80\x2e\x01\x03\x01",  # SSL 2
        b"\x16\x03\x01\0\0",  # an empty record
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\0\x04\x02\0\0\0",  # a ServerHello
        b"\x16\x03\x01\0\x04\x01\xff\xff\xff",  # longer than any
        made(server_names(b"a.example", b"b.example")),
        made(server_names(b"a.example") + server_names(b"b.example")),
        made(server_names(b"a.example", kind=1)),
        made(server_names("ä.example".encode())),
        made(b"\0\0\0\x09" + b"\0\x07\0\0\xff"),  # lengths beyond the end
        made(b"\0\0\0"),
        records(b"\x01\0\0\x02\x03\x03", 100),
        records(hello_of("a.example")[5:] + b"\x01", LONGEST_HELLO),  # two messages in one record
    ],
)
def test_what_no_client_sends_is_refused(data: bytes) -> None:
    with pytest.raises(NotTls):
        client_hello(data)


@given(st.binary(max_size=200), st.integers(0, 500), st.integers(0, 255))
def test_no_bytes_do_harm(noise: bytes, at: int, value: int) -> None:
    whole = bytearray(hello_of("packages.example"))
    whole[at % len(whole)] = value
    for data in (noise, b"\x16\x03\x01" + noise, bytes(whole)):
        with contextlib.suppress(NotTls):
            client_hello(data)


@pytest.mark.parametrize("version", [b"\x03\x03", b"\x03\x01", b"\x04\x03", b"\x7f\x00"], ids=bytes.hex)
def test_a_second_hello_is_found_whatever_version_it_claims(tmp_path: Path, version: bytes) -> None:
    """OpenSSL's server asks for one, passes over the version in it, and goes by its name."""
    names: list[str | None] = []
    _, settings = authority(tmp_path, ["packages.example"])
    settings.set_ecdh_curve("secp384r1")  # clients guess another one
    settings.sni_callback = lambda connection, name, context: names.append(name)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = settings.wrap_bio(to_server, to_client, server_side=True)
    sent = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(to_client, sent, server_hostname="packages.example")

    def proceed(side: ssl.SSLObject) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()

    proceed(client)
    to_server.write(sent.read())
    proceed(server)
    proceed(client)
    second = sent.read().replace(b"packages.example", b"attacker.example")
    at = second.index(b"\x16\x03\x03") + 9
    second = second[:at] + version + second[at + 2 :]
    to_server.write(second)
    proceed(server)
    assert names == ["packages.example", "attacker.example"]
    assert SecondHello(False).feed(second)[1] == Hello("attacker.example")
