"""What sources and destinations mean."""

from __future__ import annotations

import pytest

from sshgate.transfer.outgoing import landing_name
from sshgate.transfer.places import BySsh, Here, InPod, Misuse, Place, place, route, size


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("file", Here("file")),
        ("./a:b", Here("./a:b")),
        ("/a:b", Here("/a:b")),
        ("../x", Here("../x")),
        ("Dir/file:x", Here("Dir/file:x")),
        ("dev=work:/home/dev/", BySsh("dev=work", "localhost", "/home/dev/")),
        ("dev+gpu:x", BySsh("dev+gpu", "localhost", "x")),
        ("node:x", BySsh(None, "node", "x")),
        ("node:", BySsh(None, "node", "")),
        ("dev=work@node:/a:b c", BySsh("dev=work", "node", "/a:b c")),
        ("dev@[::1]:x", BySsh("dev", "::1", "x")),
        ("[fe80::1%eth0]:x", BySsh(None, "fe80::1%eth0", "x")),
        ("pod/box-1:/x", InPod(None, "box-1", "/x")),
        ("space/box-1:/x:y", InPod("space", "box-1", "/x:y")),
    ],
)
def test_without_options(text: str, meant: Place) -> None:
    assert place(text) == meant


def test_a_gateway_named_by_option_leaves_the_login() -> None:
    assert place("dev:x", host="node") == BySsh("dev", "node", "x")
    assert place("dev@other:x", host="node") == BySsh("dev", "other", "x")


def test_kubernetes_options_make_it_a_pod() -> None:
    assert place("box-1:/x", operator=True) == InPod(None, "box-1", "/x")
    with pytest.raises(Misuse):
        place("BOX:/x", operator=True)


@pytest.mark.parametrize("text", ["", ":x", "-oProxyCommand=x:y", "dev@-oX:y", "@node:x", "dev@:x"])
def test_words_that_cannot_be_meant(text: str) -> None:
    with pytest.raises(Misuse):
        place(text)


def test_exactly_one_side_is_far() -> None:
    here, far, other = Here("a"), BySsh("dev=work", "node", "x"), BySsh("dev=play", "node", "x")
    assert route([here, here], far) == far
    assert route([far, BySsh("dev=work", "node", "y")], here) == far
    wrong: list[tuple[list[Place], Place]] = [
        ([here], here),
        ([far], other),
        ([far, here], here),
        ([far, other], here),
    ]
    for sources, destination in wrong:
        with pytest.raises(Misuse):
            route(sources, destination)


@pytest.mark.parametrize(("text", "number"), [("5", 5), ("2k", 2048), ("500M", 500 << 20), ("20GiB", 20 << 30)])
def test_sizes(text: str, number: int) -> None:
    assert size(text) == number


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5G", "M", "5X"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(Misuse):
        size(text)


@pytest.mark.parametrize(
    ("source", "name"),
    [(b"a/b", b"b"), (b"a/b/", b"b"), (b"a/.", b"."), (b".", b"."), (b"..", b"."), (b"/", b"."), (b"-rf", b"-rf")],
)
def test_the_name_at_the_destination(source: bytes, name: bytes) -> None:
    assert landing_name(source) == name
