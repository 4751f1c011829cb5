"""Which origin is ours, and whom of those in between is believed."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from sshgate.config.model import Address, Proxy, Tls, Web
from webshim.public_endpoint import PublicEndpoint

PUBLIC = Web(public_url="https://ok.example/shell")
BOUND = Address("0.0.0.0", 31000)
PROXIED = PublicEndpoint(Web(public_url="https://ok.example", proxy=Proxy(("10.0.0.0/8", "fd00::1"))), BOUND, "s" * 20)


@pytest.mark.parametrize(
    "origin",
    [
        "", "null", "http://ok.example", "https://ok.example/", "https://ok.example.evil.com", "https://a.ok.example",
        "https://evil.com#ok.example", "https://OK.example", "https://ok.example.", "https://ok.example:443",
        "https://ok.example:31000", "https://ok.example@evil.com", "https://evil.com/https://ok.example",
        " https://ok.example", "https://ok.example https://evil.com",
    ],
)  # fmt: skip
def test_only_exactly_our_origin_is_ours(origin: str) -> None:
    place = PublicEndpoint(PUBLIC, BOUND)
    assert place.own_origin("https://ok.example", "192.0.2.1", CIMultiDict(Host="ok.example"))
    assert not place.own_origin(origin, "192.0.2.1", CIMultiDict(Host="evil.com"))
    assert not place.own_origin(origin, "192.0.2.1", CIMultiDict(Host=origin.partition("//")[2]))


def test_on_loopback_a_name_that_was_made_to_point_there_is_not_ours() -> None:
    place = PublicEndpoint(Web(), Address("127.0.0.1", 31000))
    assert place.url == "http://127.0.0.1:31000"
    for host in ("127.0.0.1:31000", "localhost:31000", "[::1]:31000"):
        assert place.own_origin(f"http://{host}", "127.0.0.1", CIMultiDict(Host=host))
    assert not place.own_origin("http://localhost:3000", "127.0.0.1", CIMultiDict(Host="localhost:31000"))
    behind = PublicEndpoint(Web(proxy=Proxy(("127.0.0.1",))), Address("127.0.0.1", 31000))
    for headers in (
        CIMultiDict(Host="evil.com:31000"),
        CIMultiDict({"Host": "evil.com", "X-Forwarded-Proto": "https"}),
    ):
        for origin in ("http://evil.com:31000", "https://evil.com"):
            assert not place.own_origin(origin, "127.0.0.1", headers)
            assert not behind.own_origin(origin, "127.0.0.1", headers)


# As the k3s overlay has it: pods are believed, and nobody has said a name.
NAMELESS = PublicEndpoint(Web(proxy=Proxy(("10.42.0.0/16",))), BOUND, node="192.0.2.9")


@pytest.mark.parametrize(
    ("peer", "forwarded", "origin"),
    [
        ("203.0.113.7", None, "http://node:31000"),
        ("203.0.113.7", "https", "http://node:31000"),
        ("10.42.0.8", "https", "https://node:31000"),
        ("10.42.0.8", "wss", "https://node:31000"),
        ("10.42.0.8", "http", "http://node:31000"),
        ("10.42.0.8", "ws", "http://node:31000"),
        ("10.42.0.8", "gopher", "http://node:31000"),
        ("10.42.0.8", None, "http://node:31000"),
    ],
)
def test_without_a_name_ours_is_the_origin_that_the_browser_itself_asked(
    peer: str, forwarded: str | None, origin: str
) -> None:
    headers = CIMultiDict({"Host": "node:31000"} | ({"X-Forwarded-Proto": forwarded} if forwarded else {}))
    found = [one for one in ("http://node:31000", "https://node:31000") if NAMELESS.own_origin(one, peer, headers)]
    assert found == [origin]
    assert not NAMELESS.own_origin(origin, peer, CIMultiDict({**headers, "Host": "other:31000"}))
    assert NAMELESS.cookie(NAMELESS.scheme(peer, headers)) == (
        "__Host-sshgate" if origin.startswith("https:") else "sshgate-31000"
    )


def test_two_lines_of_a_scheme_say_nothing() -> None:
    forwarded = CIMultiDict([("X-Forwarded-Proto", "https"), ("X-Forwarded-Proto", "https")])
    assert NAMELESS.scheme("10.42.0.8", forwarded) == "http"


def test_without_a_name_links_lead_to_the_node_and_by_the_proxy() -> None:
    assert NAMELESS.url_at("10.42.0.5") == "https://192.0.2.9"
    assert (
        PublicEndpoint(Web(tls=Tls()), BOUND, node="2001:db8::9").url_at("10.42.0.5") == "https://[2001:db8::9]:31000"
    )
    assert PublicEndpoint(PUBLIC, BOUND, node="192.0.2.9").url_at("10.42.0.5") == "https://ok.example/shell"
    at = Address("192.0.2.7", 31000)
    assert PublicEndpoint(Web(tls=Tls()), at, node="192.0.2.9").url_at("192.0.2.7") == "https://192.0.2.7:31000"


def test_only_a_proxy_is_believed() -> None:
    forwarded = CIMultiDict(
        {"X-Forwarded-For": "203.0.113.7", "x-forwarded-prefix": "/term/", "X-Forwarded-Proto": "http"}
    )
    assert PROXIED.source_of("192.0.2.1", forwarded) == "192.0.2.1"
    assert PROXIED.base_of("192.0.2.1", forwarded) == ""
    assert PROXIED.source_of("10.1.2.3", forwarded) == "203.0.113.7"
    assert PROXIED.base_of("10.1.2.3", forwarded) == "/term"
    assert PROXIED.source_of("::ffff:10.1.2.3", forwarded) == "203.0.113.7"


@pytest.mark.parametrize(
    ("forwarded", "source"),
    [
        ("1.1.1.1, 203.0.113.7", "203.0.113.7"), ("1.1.1.1, 203.0.113.7, 10.9.9.9", "203.0.113.7"), ("", "10.0.0.1"),
        ("1.1.1.1, nonsense", "10.0.0.1"), ("10.0.0.7", "10.0.0.7"), ("2001:db8::1", "2001:db8::1"),
        ("1.1.1.1%x y", "1.1.1.1"),
    ],
)  # fmt: skip
def test_the_client_is_the_last_address_that_is_no_proxy(forwarded: str, source: str) -> None:
    assert PROXIED.source_of("10.0.0.1", CIMultiDict({"X-Forwarded-For": forwarded})) == source


def test_an_address_that_a_proxy_adds_as_a_line_of_its_own_counts_not_the_clients_line() -> None:
    forwarded = CIMultiDict([("X-Forwarded-For", "198.51.100.1"), ("X-Forwarded-For", "203.0.113.7")])
    assert PROXIED.source_of("10.0.0.1", forwarded) == "203.0.113.7"


@pytest.mark.parametrize("prefix", ["//evil.com", "/a/../b", '/"><script>', "term", "/a b"])
def test_a_prefix_that_is_no_plain_path_is_not_used(prefix: str) -> None:
    assert PROXIED.base_of("10.0.0.1", CIMultiDict({"X-Forwarded-Prefix": prefix})) == ""


def test_a_proxy_names_a_user_only_with_its_secret() -> None:
    named = CIMultiDict({"X-Forwarded-User": "alice", "X-Sshgate-Secret": "s" * 20})
    assert PROXIED.user_of("10.0.0.1", named) == "alice"
    assert PROXIED.user_of("192.0.2.1", named) is None
    assert PROXIED.user_of("10.0.0.1", CIMultiDict({"X-Forwarded-User": "alice"})) is None
    assert PROXIED.user_of("10.0.0.1", CIMultiDict({**named, "X-Sshgate-Secret": "s" * 19})) is None
    assert PROXIED.user_of("10.0.0.1", CIMultiDict({**named, "X-Forwarded-User": "../alice"})) is None
    for name in named:
        # A proxy that adds its line to the client's instead of replacing it says nothing.
        assert PROXIED.user_of("10.0.0.1", CIMultiDict([(name, "bob"), *named.items()])) is None
    assert PublicEndpoint(PUBLIC, BOUND).user_of("10.0.0.1", named) is None
