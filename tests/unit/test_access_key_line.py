"""Lines of authorized_keys files: which keys are accepted, and what their options mean."""

from __future__ import annotations

import base64
import struct
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from sshgate.access.identity import Restrictions
from sshgate.access.key_line import KEY_TYPES, KeyLine, LineRefused, parse
from tests.rig.keys import blob_of, ed25519, encoded, wire

SOURCE = "192.0.2.7"
NOW = 1_800_000_000.0
FULL = Restrictions()
KEY = ed25519()


def line(text: str) -> KeyLine:
    read = parse(text)
    assert read is not None
    return read


# --- keys ---


def test_every_accepted_type_is_accepted() -> None:
    point = {"nistp256": 65, "nistp384": 97, "nistp521": 133}
    keys = [
        KEY,
        encoded(rsa.generate_private_key(65537, 2048).public_key()),
        *(
            encoded(ec.generate_private_key(curve()).public_key())
            for curve in (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
        ),
        wire(b"sk-ssh-ed25519@openssh.com", bytes(32), b"ssh:"),
        wire(b"sk-ecdsa-sha2-nistp256@openssh.com", b"nistp256", b"\x04" + bytes(point["nistp256"] - 1), b"ssh:"),
    ]
    assert {key.split()[0] for key in keys} == KEY_TYPES
    for key in keys:
        assert line(key).blob == blob_of(key)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (wire(b"ssh-dss", b"1", b"2", b"3", b"4"), "keys of type 'ssh-dss' are not accepted"),
        (wire(b"ssh-rsa", b"\1\0\1", b"\x7f" + bytes(127)), "the RSA key has 1023 bits"),
        (wire(b"ssh-rsa", b"\1\0\1"), "damaged"),
        (wire(b"ssh-ed25519", bytes(31)), "damaged"),
        (wire(b"ssh-ed25519", bytes(32), b"more"), "damaged"),
        (wire(b"ecdsa-sha2-nistp256", b"nistp384", b"\x04" + bytes(96)), "damaged"),
        (wire(b"ecdsa-sha2-nistp256", b"nistp256", b"\x02" + bytes(64)), "damaged"),
        (wire(b"sk-ssh-ed25519@openssh.com", bytes(32)), "damaged"),
        pytest.param("ssh-ed25519 " + KEY.split()[1][:-8], "damaged", id="cut-damaged"),
        ("ssh-ed25519 !!!!", "damaged"),
        pytest.param("ssh-rsa " + KEY.split()[1], "damaged", id="other-type-damaged"),
        ("ssh-ed25519", "no key on this line"),
        ("ssh-ed25519-cert-v01@openssh.com AAAA", "this is a certificate"),
    ],
)
def test_other_keys_are_refused_with_a_reason(key: str, reason: str) -> None:
    with pytest.raises(LineRefused, match=reason):
        parse(key)


def parsed(text: str) -> KeyLine | str | None:
    """What one gets for a line: its meaning or a reason, never another exception."""
    try:
        return parse(text)
    except LineRefused as refusal:
        return str(refusal)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    assert parsed(text) or not text.strip() or text.strip().startswith("#")


@given(st.binary(max_size=200), st.sampled_from(sorted(KEY_TYPES)))
def test_any_blob_is_read_or_refused(blob: bytes, kind: str) -> None:
    tail = base64.b64encode(struct.pack(">I", len(kind)) + kind.encode() + blob).decode()
    assert parsed(f"{kind} {tail}")


# --- options ---


@pytest.mark.parametrize(
    ("options", "restrictions"),
    [
        ("no-pty", Restrictions(terminal=False)),
        ("NO-PTY", Restrictions(terminal=False)),
        ("no-port-forwarding,no-agent-forwarding", Restrictions(port_forwarding=False, agent_forwarding=False)),
        ("restrict", Restrictions(None, False, False, False)),
        ("restrict,pty", Restrictions(None, True, False, False)),
        ("pty,restrict", Restrictions(None, False, False, False)),
        ("restrict,port-forwarding,pty", Restrictions(None, True, True, False)),
        (
            'permitopen="localhost:80",permitopen="[::1]:*"',
            Restrictions(permit_open=(("localhost", 80), ("::1", None))),
        ),
        ('permitlisten="80",permitlisten="*:8080"', Restrictions(permit_listen=(("*", 80), ("*", 8080)))),
        ('no-port-forwarding,permitopen="*:80"', Restrictions(port_forwarding=False, permit_open=(("*", 80),))),
        ("no-X11-forwarding,no-user-rc,touch-required", FULL),
        ("no-touch-required,verify-required", Restrictions(touch=False, verify=True)),
        ("no-touch-required,touch-required,verify-required,no-verify-required", FULL),
        ('tunnel="0",X11-forwarding,user-rc', FULL),
        ('command="a b, \\"c\\" \\d"', Restrictions(command=rb'a b, "c" \d')),
        ('command="x",no-pty', Restrictions(command=b"x", terminal=False)),
        (
            'environment="A=1",environment="B=x=\\"y z\\"",environment="A=2"',
            Restrictions(environment={"A": b"1", "B": b'x="y z"'}),
        ),
        ('environment="EMPTY="', Restrictions(environment={"EMPTY": b""})),
    ],
)
def test_options_restrict(options: str, restrictions: Restrictions) -> None:
    assert line(f"{options} {KEY} comment").restrictions == restrictions


@pytest.mark.parametrize(
    "options",
    [
        "unknown", 'unknown="x"', "no-restrict", "no-cert-authority", 'no-pty="x"',
        "command", "command=ls", 'command=""', 'command="x"y', 'command="a",command="b"', ",no-pty", "no-pty,", "a,,b",
        "environment", 'environment="1A=b"', 'environment="A"', 'environment="A B=c"',
        'principals="a"', 'cert-authority,principals="a,,b"', 'cert-authority,principals=""',
        'from=""', 'from="!bad.example.org,*"', 'from="10.0.0.1/8"', 'from="10.0.0.0/33"', 'from="*",from="*"',
        'from="*,!1.2.3"', 'from="*,![ab]*"', 'from="*,!::ffff:*"', 'from="*,!*.example.org"', 'from="*,!"',
        'expiry-time="2030"', 'expiry-time="20301332"', 'expiry-time="20300101Y"', 'expiry-time="203001012"',
    ],
)  # fmt: skip
def test_options_that_cannot_be_kept_make_a_line_useless(options: str) -> None:
    with pytest.raises(LineRefused):
        parse(f"{options} {KEY}")


def test_refusals_show_no_values() -> None:
    for options in ('environment="1TOKEN=hunter2"', 'command="hunter2" command="hunter2"', 'command="hunter2'):
        with pytest.raises(LineRefused) as refused:
            parse(f"{options} {KEY}")
        assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("patterns", "source", "allowed"),
    [
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/8,!10.1.*", "10.1.2.3", False),
        ("!10.1.*,10.0.0.0/8", "10.1.2.3", False),
        ("!10.1.*", "10.2.0.0", False),
        ("192.0.2.?", "192.0.2.7", True),
        ("192.0.2.?", "192.0.2.77", False),
        ("*", "2001:db8::1", True),
        ("2001:DB8::/32", "2001:db8::1", True),
        ("2001:db8:0::1", "2001:db8::1", True),
        ("fe80::*", "fe80::1%eth0", True),
        ("10.0.0.0/8", "::ffff:10.0.0.1", True),
        ("::/0", "10.0.0.1", False),
        # What cannot be an address's is nobody's, and the rest counts.
        ("example.org,*.lan,1.2.3,[ab]*,192.0.2.7,,", "192.0.2.7", True),
        ("example.org,*.lan,1.2.3,[ab]*", "192.0.2.7", False),
        ("[a2]*", "2001:db8::1", False),
        # IPv4 in IPv6 is IPv4, in a list as well.
        ("*,!::ffff:10.0.0.1", "10.0.0.1", False),
        ("*,!::ffff:10.0.0.1", "::ffff:10.0.0.1", False),
        ("*,!::FFFF:0a00:0001", "10.0.0.1", False),
        ("*,!::ffff:10.0.*", "10.0.0.1", False),
        ("*,!::ffff:10.0.0.0/104", "10.0.0.1", False),
        ("::ffff:10.0.0.0/104", "10.0.0.1", True),
        ("::ffff:10.0.0.0/104", "11.0.0.1", False),
        ("*", "not an address", False),
        ("*", "", False),
    ],
)
def test_from_decides_by_address(patterns: str, source: str, allowed: bool) -> None:
    assert line(f'from="{patterns}" {KEY}').allows(source, NOW) is allowed


@pytest.mark.parametrize(
    ("options", "note"),
    [
        ('from="10.0.0.1,example.org"', "'example.org', which matches nobody"),
        ('tunnel="1"', "tunnel= is not offered here"),
        ("X11-forwarding", "x11-forwarding is not offered"),
        ("user-rc", "user-rc is not offered"),
        ("verify-required", "for security keys only"),
    ],
)
def test_what_has_no_effect_is_noted(options: str, note: str) -> None:
    (noted,) = line(f"{options} {KEY}").notes
    assert note in noted
    assert not line(f'restrict,no-x11-forwarding,from="*" {KEY}').notes


@pytest.mark.parametrize(
    ("text", "expires"),
    [("20300101Z", 1893456000), ("203001011230Z", 1893501000), ("20300101123059Z", 1893501059)],
)
def test_keys_expire(text: str, expires: int) -> None:
    read = line(f'expiry-time="{text}" {KEY}')
    assert read.allows(SOURCE, expires - 0.5)
    assert not read.allows(SOURCE, expires)


def test_expiry_without_z_is_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC-2")
    time.tzset()
    try:
        assert line(f'expiry-time="20300101" {KEY}').expires == 1893456000 - 7200
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_earliest_expiry_counts() -> None:
    assert line(f'expiry-time="20310101Z",expiry-time="20300101Z" {KEY}').expires == 1893456000
