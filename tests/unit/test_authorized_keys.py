"""Keys in files: which lines open the gateway, to whom, from where and until when."""

from __future__ import annotations

import base64
import logging
import os
import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from sshgate.access.authorized_keys import LARGEST_FILE, Authority, Keyring
from sshgate.access.identity import Restrictions
from sshgate.access.key_line import KEY_TYPES, KeyLine, LineRefused, parse

SOURCE = "192.0.2.7"
NOW = 1_800_000_000.0
FULL = Restrictions()


def ed25519() -> str:
    return encoded(Ed25519PrivateKey.generate().public_key())


def encoded(key: Ed25519PublicKey | rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> str:
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def blob_of(line: str) -> bytes:
    return base64.b64decode(line.split()[1])


def wire(*parts: bytes) -> str:
    blob = b"".join(struct.pack(">I", len(part)) + part for part in parts)
    return f"{parts[0].decode()} {base64.b64encode(blob).decode()}"


KEY = ed25519()
OTHER = ed25519()
BLOB = blob_of(KEY)


class Place:
    """A directory of keys and the keyring that reads it."""

    def __init__(self, root: Path) -> None:
        self.users = root / "users"
        self.users.mkdir()
        self.ca = root / "user_ca.pub"
        self.ring = Keyring(self.users, self.ca)

    def write(self, text: str, user: str = "alice", mode: int = 0o600) -> Path:
        path = self.users / user
        path.write_text(text)
        path.chmod(mode)
        return path

    def key(
        self, user: str = "alice", blob: bytes = BLOB, source: str = SOURCE, now: float = NOW
    ) -> Restrictions | None:
        return self.ring.key(user, blob, source, now)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def line(text: str) -> KeyLine:
    read = parse(text)
    assert read is not None
    return read


# --- files ---


def test_nobody_gets_in_without_files(place: Place) -> None:
    assert place.ring.empty
    assert place.key() is None
    assert Keyring(place.users / "missing", None).empty


def test_a_key_opens_for_its_user_only(place: Place) -> None:
    place.write(f"# her laptop\n\n{KEY} alice@laptop\n")
    assert not place.ring.empty
    assert place.key() == FULL
    assert place.key("bob") is None
    assert place.key(blob=blob_of(OTHER)) is None


def test_changes_count_at_the_next_login(place: Place) -> None:
    path = place.write(KEY)
    assert place.key() == FULL
    place.write(OTHER)
    assert place.key() is None
    place.write(f"no-pty {KEY}")
    assert place.key() == Restrictions(terminal=False)
    path.unlink()
    assert place.key() is None
    assert place.ring.empty


def test_a_change_with_the_old_time_and_size_is_seen(place: Place) -> None:
    path = place.write(KEY)
    before = path.stat()
    assert place.key() == FULL
    place.write(OTHER)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert place.key() is None


def test_a_mounted_secret_is_read_and_followed(place: Place) -> None:
    for version, key in (("..v1", KEY), ("..v2", OTHER)):
        (place.users / version).mkdir()
        (place.users / version / "alice").write_text(key)
        (place.users / version / "alice").chmod(0o644)
    (place.users / "..data").symlink_to("..v1")
    (place.users / "alice").symlink_to("..data/alice")
    place.users.chmod(0o1777)
    assert place.key() == FULL
    assert place.ring.users() == ["alice"]
    (place.users / "..tmp").symlink_to("..v2")
    (place.users / "..tmp").rename(place.users / "..data")
    assert place.key() is None
    assert place.key(blob=blob_of(OTHER)) == FULL


@pytest.mark.parametrize(
    "name", [".alice", "README", "README.md", "alice.pub", "alice.bak", "alice.old", "alice~", "#alice#", "alice.swp"]
)
def test_left_over_files_are_nobodys(place: Place, name: str) -> None:
    place.write(KEY, name)
    assert place.key(name) is None
    assert place.ring.users() == []
    assert place.ring.empty


@pytest.mark.parametrize("user", ["", ".", "..", "../users/alice", "alice/", "/etc/passwd", "alice\0", "alice\n", "-a"])
def test_no_name_leaves_the_directory(place: Place, user: str) -> None:
    place.write(KEY)
    assert place.key(user) is None


@pytest.mark.parametrize("mode", [0o602, 0o666, 0o606])
def test_a_file_that_others_can_write_opens_nothing(place: Place, mode: int, caplog: pytest.LogCaptureFixture) -> None:
    path = place.write(KEY, mode=mode)
    assert place.key() is None
    assert f"{path} can be written by others (chmod go-w)" in caplog.text
    path.chmod(0o644)
    assert place.key() == FULL


def test_a_directory_that_all_can_write_opens_nothing(place: Place) -> None:
    place.write(KEY)
    place.users.chmod(0o777)
    assert place.key() is None
    place.users.chmod(0o1777)
    assert place.key() == FULL


def test_what_is_no_file_is_no_hindrance(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    os.mkfifo(place.users / "alice", 0o600)
    (place.users / "bob").mkdir()
    (place.users / "carol").symlink_to("nowhere")
    assert [place.key(user) for user in ("alice", "bob", "carol")] == [None] * 3
    assert "alice is not a regular file" in caplog.text


def test_a_huge_file_opens_nothing(place: Place) -> None:
    place.write(f"{KEY}\n" + "#" * LARGEST_FILE)
    assert place.key() is None


def test_a_private_key_put_there_by_mistake_is_told_and_not_shown(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.write("-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n")
    assert place.key() is None
    assert "holds a private key" in caplog.text
    assert "c2VjcmV0" not in caplog.text


def test_a_bad_line_is_named_and_takes_no_other_down(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    path = place.write(f'rubbish\nfrobnicate {OTHER}\ncommand="open {OTHER}\n{KEY}\nssh-ed25519 AAAA\n\xff\xfe x\n')
    with caplog.at_level(logging.WARNING, "sshgate.access"):
        assert place.key() == FULL
        assert place.key(blob=blob_of(OTHER)) is None
    assert [record.getMessage().split(": ")[0] for record in caplog.records] == [f"{path}:{n}" for n in (1, 2, 3, 5, 6)]
    assert "'frobnicate' is unknown" in caplog.text
    caplog.clear()
    place.key()
    assert not caplog.records, "an unchanged file is told of once"


@pytest.mark.parametrize("text", ["\ufeff{}", "{}\r\n", "  \t{}", "{} with a comment # here", "{}"])
def test_editors_leave_marks_and_blanks(place: Place, text: str) -> None:
    place.write(text.format(KEY))
    assert place.key() == FULL


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
        ("ssh-ed25519 " + KEY.split()[1][:-8], "damaged"),
        ("ssh-ed25519 !!!!", "damaged"),
        ("ssh-rsa " + KEY.split()[1], "damaged"),
        ("ssh-ed25519", "no key on this line"),
        ("ssh-ed25519-cert-v01@openssh.com AAAA", "this is a certificate"),
    ],
)
def test_other_keys_are_refused_with_a_reason(key: str, reason: str) -> None:
    with pytest.raises(LineRefused, match=reason):
        parse(key)


def said_of(text: str) -> KeyLine | str | None:
    """What one gets for a line: its meaning or a reason, never another exception."""
    try:
        return parse(text)
    except LineRefused as refusal:
        return str(refusal)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    assert said_of(text) or not text.strip() or text.strip().startswith("#")


@given(st.binary(max_size=200), st.sampled_from(sorted(KEY_TYPES)))
def test_any_blob_is_read_or_refused(blob: bytes, kind: str) -> None:
    tail = base64.b64encode(struct.pack(">I", len(kind)) + kind.encode() + blob).decode()
    assert said_of(f"{kind} {tail}")


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
        ('permitopen="localhost:80",port-forwarding', Restrictions(port_forwarding=False)),
        ('port-forwarding,permitlisten="80"', Restrictions(port_forwarding=False)),
        ("no-X11-forwarding,no-user-rc,no-touch-required", FULL),
        ('tunnel="0"', FULL),
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
        "unknown", 'unknown="x"', "verify-required", "no-restrict", "no-cert-authority", 'no-pty="x"',
        "command", "command=ls", 'command=""', 'command="x"y', 'command="a",command="b"', ",no-pty", "no-pty,", "a,,b",
        "environment", 'environment="1A=b"', 'environment="A"', 'environment="A B=c"',
        'principals="a"', 'cert-authority,principals="a,,b"', 'cert-authority,principals=""',
        'from=""', 'from="example.org"', 'from="!bad.example.org,*"', 'from="10.0.0.1/8"', 'from="10.0.0.0/33"',
        'from="1.2.3"', 'from="1.2.3.4,,"', 'from="[ab]*"', 'from="*",from="*"',
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
        ("*", "not an address", False),
        ("*", "", False),
    ],
)
def test_from_decides_by_address(patterns: str, source: str, allowed: bool) -> None:
    assert line(f'from="{patterns}" {KEY}').allows(source, NOW) is allowed


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


def test_the_first_line_that_allows_counts(place: Place) -> None:
    place.write(f'expiry-time="20200101",command="old" {KEY}\nfrom="10.*",no-pty {KEY}\n{KEY}\n')
    assert place.key(source="10.0.0.1") == Restrictions(terminal=False)
    assert place.key(source="192.0.2.1") == FULL


# --- authorities ---


def test_an_authority_opens_nothing_by_itself(place: Place) -> None:
    place.write(f"cert-authority {KEY}\n{OTHER}\n")
    place.ca.write_text(KEY)
    assert place.key() is None
    assert place.ring.authority("alice", blob_of(OTHER), SOURCE, NOW) is None


def test_an_authority_of_one_user(place: Place) -> None:
    place.write(f'cert-authority,principals="ops,admin",no-pty,from="192.0.2.0/24" {KEY}')
    assert place.ring.authority("alice", BLOB, SOURCE, NOW) == Authority(
        frozenset({"ops", "admin"}), Restrictions(terminal=False)
    )
    assert place.ring.authority("alice", BLOB, "198.51.100.1", NOW) is None
    assert place.ring.authority("bob", BLOB, SOURCE, NOW) is None


def test_without_principals_the_users_name_counts(place: Place) -> None:
    place.write(f"cert-authority {KEY}")
    assert place.ring.authority("alice", BLOB, SOURCE, NOW) == Authority(frozenset({"alice"}), FULL)


def test_the_line_that_accepts_a_principal_is_found(place: Place) -> None:
    place.write(f'cert-authority,principals="ops" {KEY}\ncert-authority,principals="dev",no-pty {KEY}')

    def found(*names: str) -> Restrictions | None:
        authority = place.ring.authority("alice", BLOB, SOURCE, NOW, frozenset(names))
        return None if authority is None else authority.restrictions

    assert found("dev", "x") == Restrictions(terminal=False)
    assert found("ops", "dev") == FULL
    assert found("other") is None
    assert found() is None


def test_a_configured_authority_signs_for_every_user(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.ca.write_text(f"# ours\n{KEY}\nno-pty {OTHER}\n")
    assert not place.ring.empty
    assert place.ring.authority("anyone", BLOB, SOURCE, NOW) == Authority(frozenset({"anyone"}), FULL)
    assert place.ring.authority("anyone", blob_of(OTHER), SOURCE, NOW) is None
    assert "user_ca.pub:3: options have no meaning here" in caplog.text


# --- as OpenSSH sees it ---


def test_what_ssh_keygen_makes_is_read(place: Place, tmp_path: Path) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("no ssh-keygen on this machine")
    for kind in ("ed25519", "ecdsa", "rsa"):
        path = tmp_path / kind
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "a, b", "-f", path], check=True)
        public = path.with_suffix(".pub").read_text()
        place.write(public)
        assert place.key(blob=blob_of(public)) == FULL


def test_a_stranger_costs_the_time_of_a_user(place: Place) -> None:
    """Within what a network hides: tens of microseconds."""
    place.write("".join(f"{ed25519()}\n" for _ in range(3)))

    def cost(user: str) -> float:
        def once() -> float:
            begin = time.perf_counter()
            for _ in range(50):
                place.key(user)
            return (time.perf_counter() - begin) / 50

        return min(once() for _ in range(9))

    assert abs(cost("alice") - cost("nobody")) < 50e-6
