"""Which forwards are allowed, what counts as the sandbox's own, and the frames of the relay."""

from __future__ import annotations

import pytest

from sshgate.access.identity import Restrictions
from sshgate.config.model import Forward, Profile
from sshgate.errors import BadRequest, Denied
from sshgate.forwarding import inside
from sshgate.forwarding.destinations import (
    Tcp,
    Unix,
    check_key,
    check_listening,
    check_profile,
    offers_agent,
    own_addresses,
)
from sshgate.forwarding.relay import LONGEST, frame, opening
from sshgate.sandbox.framing import FrameReader, ProtocolError


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "localhost.", "a.localhost", "", "ip6-localhost"])
def test_names_of_the_sandbox_itself_become_both_its_addresses(host: str) -> None:
    assert own_addresses(host) == ("127.0.0.1", "::1")


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"), ("127.8.9.1", "127.8.9.1"), ("::1", "::1"), ("::ffff:127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("::ffff:0.0.0.0", "127.0.0.1"),
    ],
)  # fmt: skip
def test_loopback_addresses_are_taken_as_they_are(host: str, address: str) -> None:
    assert own_addresses(host) == (address,)


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1", "169.254.169.254", "fe80::1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
        "kubernetes.default.svc", "localhost.example.org", "notlocalhost", "127.1", "2130706433", "0x7f000001",
        "0177.0.0.1", "127.0.0.1.nip.io", "64:ff9b::7f00:1", "[::1]", "::1%lo0 ", " 127.0.0.1",
    ],
)  # fmt: skip
def test_whatever_else_is_another_host(host: str) -> None:
    assert own_addresses(host) == ()
    with pytest.raises(Denied, match="only the sandbox's own localhost"):
        check_profile(Tcp(host, 80), Profile(), own_addresses(host))
    check_profile(Tcp(host, 80), Profile(forward=Forward(elsewhere=True)), ())


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("sandbox", ("127.0.0.1", "::1", "10.1.2.3", "fd00::7")),
        ("SandBox.", ("127.0.0.1", "::1", "10.1.2.3", "fd00::7")),
        ("10.1.2.3", ("10.1.2.3",)), ("::ffff:10.1.2.3", ("10.1.2.3",)), ("fd00:0::0007", ("fd00::7",)),
        ("10.1.2.4", ()), ("fd00::8", ()), ("sandbox.example.org", ()), ("sandbox2", ()), ("fd00::7%eth0", ()),
    ],
)  # fmt: skip
def test_a_sandboxs_name_and_addresses_are_itself(host: str, own: tuple[str, ...]) -> None:
    assert own_addresses(host, "sandbox", ("10.1.2.3", "fd00::7")) == own


def test_a_sandbox_without_a_name_of_its_own_is_no_name() -> None:
    assert own_addresses("node", "", ()) == ()


def test_a_profile_can_close_each_way_by_itself() -> None:
    check_profile(Unix("/run/x"), Profile(), ())
    check_listening(Profile())
    closed = Profile(forward=Forward(loopback=False, remote=False))
    for destination in (Tcp("localhost", 80), Unix("/run/x")):
        with pytest.raises(Denied, match="does not allow forwarding into the sandbox"):
            check_profile(destination, closed, ("127.0.0.1",))
    with pytest.raises(Denied, match="does not allow remote forwarding"):
        check_listening(closed)


def test_the_agent_needs_both_the_profile_and_the_key() -> None:
    assert not offers_agent(Forward(), Restrictions())
    assert offers_agent(Forward(agent=True), Restrictions())
    assert not offers_agent(Forward(agent=True), Restrictions(agent_forwarding=False))


def test_a_list_of_destinations_leaves_no_way_to_a_unix_socket() -> None:
    limits = Restrictions(permit_open=(("*", None),))
    check_key(Tcp("db", 5432), limits)
    with pytest.raises(Denied, match="permitopen="):
        check_key(Unix("/run/x"), limits)


def test_listeners_have_a_list_of_their_own() -> None:
    limits = Restrictions(permit_open=(("localhost", 80),), permit_listen=(("*", 8080),))
    check_key(Tcp("", 8080), limits, listening=True)
    with pytest.raises(Denied, match="permitlisten="):
        check_key(Tcp("", 80), limits, listening=True)


@pytest.mark.parametrize(
    "where",
    [Tcp("localhost", 0), Tcp("localhost", 70_000), Tcp("x" * 300, 1), Tcp("a\nb", 1), Unix(""), Unix("x" * 108)],
)
def test_what_no_socket_can_be_is_refused(where: Tcp | Unix) -> None:
    with pytest.raises(BadRequest):
        check_key(where, Restrictions())


@pytest.mark.parametrize("host", ["a!!EXEC:id", "a,fork", "-e", "a b", "a/b", "$(id)"])
def test_a_host_is_a_name_or_an_address_and_no_word_of_a_program(host: str) -> None:
    """Where there is no relay it becomes part of socat's or nc's arguments; a key may forbid all programs but one."""
    with pytest.raises(BadRequest, match="neither a name nor an address"):
        check_key(Tcp(host, 80), Restrictions())
    check_key(Tcp("*", 80), Restrictions(), listening=True)


def test_the_sandbox_is_given_numbers_for_its_own_names() -> None:
    assert opening(Tcp("localhost", 80), own_addresses("localhost")) == b"t\0\x50127.0.0.1\n::1"
    assert opening(Tcp("example.org", 443)) == b"t\x01\xbbexample.org"
    assert opening(Unix("/run/x")) == b"u/run/x"


def test_frames_come_whole_however_they_are_cut() -> None:
    sent = [(inside.DATA, 7, b"abc"), (inside.EOF, 7, b""), (inside.DATA, 8, bytes(inside.CHUNK))]
    wire = b"".join(frame(*one) for one in sent)
    for size in (1, 5, 1000, len(wire)):
        reader = FrameReader(inside.HEAD, LONGEST)
        pieces = [wire[at : at + size] for at in range(0, len(wire), size)]
        assert [one for piece in pieces for one in reader.feed(piece)] == sent


def test_a_frame_longer_than_the_relay_ever_sends_is_somebody_else() -> None:
    with pytest.raises(ProtocolError):
        list(FrameReader(inside.HEAD, LONGEST).feed(frame(inside.DATA, 1, bytes(LONGEST + 1))))
