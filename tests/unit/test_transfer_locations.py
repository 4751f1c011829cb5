"""What sources and destinations mean."""

from __future__ import annotations

import pytest

from sshgate.transfer.locations import LocalPath, Location, PodPath, SshPath, UsageError, parse_location, route, size
from sshgate.transfer.sender import destination_name


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("file", LocalPath("file")),
        ("./a:b", LocalPath("./a:b")),
        ("/a:b", LocalPath("/a:b")),
        ("../x", LocalPath("../x")),
        ("Dir/file:x", LocalPath("Dir/file:x")),
        ("dev=work:/home/dev/", SshPath("dev=work", "localhost", "/home/dev/")),
        ("dev+gpu:x", SshPath("dev+gpu", "localhost", "x")),
        ("node:x", SshPath(None, "node", "x")),
        ("node:", SshPath(None, "node", "")),
        ("dev=work@node:/a:b c", SshPath("dev=work", "node", "/a:b c")),
        ("dev@[::1]:x", SshPath("dev", "::1", "x")),
        ("[fe80::1%eth0]:x", SshPath(None, "fe80::1%eth0", "x")),
        ("pod/box-1:/x", PodPath(None, "box-1", "/x")),
        ("space/box-1:/x:y", PodPath("space", "box-1", "/x:y")),
    ],
)
def test_without_options(text: str, meant: Location) -> None:
    assert parse_location(text) == meant


def test_a_gateway_named_by_option_leaves_the_login() -> None:
    assert parse_location("dev:x", host="node") == SshPath("dev", "node", "x")
    assert parse_location("dev@other:x", host="node") == SshPath("dev", "other", "x")


def test_kubernetes_options_make_it_a_pod() -> None:
    assert parse_location("box-1:/x", operator=True) == PodPath(None, "box-1", "/x")
    with pytest.raises(UsageError):
        parse_location("BOX:/x", operator=True)


@pytest.mark.parametrize("text", ["", ":x", "-oProxyCommand=x:y", "dev@-oX:y", "@node:x", "dev@:x"])
def test_words_that_cannot_be_meant(text: str) -> None:
    with pytest.raises(UsageError):
        parse_location(text)


@pytest.mark.parametrize("text", ["[-oProxyCommand=x]:y", "dev@[-oProxyCommand=x]:y", "[]:x", "@[::1]:x"])
def test_a_host_in_brackets_is_a_host(text: str) -> None:
    with pytest.raises(UsageError):
        parse_location(text)


@pytest.mark.parametrize("host", ["", "-oProxyCommand=x"])
def test_the_gateway_of_the_option_is_a_host(host: str) -> None:
    with pytest.raises(UsageError):
        parse_location("dev:x", host=host)


def test_exactly_one_side_is_far() -> None:
    here, far, other = LocalPath("a"), SshPath("dev=work", "node", "x"), SshPath("dev=play", "node", "x")
    assert route([here, here], far) == far
    assert route([far, SshPath("dev=work", "node", "y")], here) == far
    wrong: list[tuple[list[Location], Location]] = [
        ([here], here),
        ([far], other),
        ([far, here], here),
        ([far, other], here),
    ]
    for sources, destination in wrong:
        with pytest.raises(UsageError):
            route(sources, destination)


@pytest.mark.parametrize(("text", "number"), [("5", 5), ("2k", 2048), ("500M", 500 << 20), ("20GiB", 20 << 30)])
def test_sizes(text: str, number: int) -> None:
    assert size(text) == number


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5G", "M", "5X"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError):
        size(text)


@pytest.mark.parametrize(
    ("source", "name"),
    [(b"a/b", b"b"), (b"a/b/", b"b"), (b"a/.", b"."), (b".", b"."), (b"..", b"."), (b"/", b"."), (b"-rf", b"-rf")],
)
def test_the_name_at_the_destination(source: bytes, name: bytes) -> None:
    assert destination_name(source) == name
