"""Keys in files: which lines open the gateway, to whom, from where and until when."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest

from sshgate.access.authorized_keys import LARGEST_FILE, Authority, Keyring
from sshgate.access.identity import Restrictions
from sshgate.access.key_line import fingerprint_of
from tests.rig.keys import blob_of, ed25519

SOURCE = "192.0.2.7"
NOW = 1_800_000_000.0
FULL = Restrictions()


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


def test_a_place_that_cannot_be_looked_at_is_reported_once(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    (place.users / "alice").symlink_to("alice")
    assert [place.key() for _ in range(3)] == [None] * 3
    assert caplog.text.count("alice cannot be looked at") == 1


@pytest.mark.parametrize("target", ["alice", "/proc/self/mem"])  # ELOOP when it is opened, EIO when it is read
def test_a_file_that_cannot_be_read_keeps_what_was_known_of_it_and_is_read_again(
    place: Place, caplog: pytest.LogCaptureFixture, target: str
) -> None:
    path = place.write(KEY)
    place.write(KEY, "bob")
    assert place.key() == FULL
    path.unlink()
    path.symlink_to(target)
    assert [place.key() for _ in range(3)] == [FULL] * 3
    assert caplog.text.count("alice cannot be looked at") == 1
    # Nothing is known of one that was never read.
    (place.users / "carol").symlink_to(path)
    assert place.key("carol") is None
    path.unlink()
    place.write(OTHER)
    assert place.key() is None
    assert place.key("carol", blob_of(OTHER)) == FULL
    path.unlink()
    assert place.key(blob=blob_of(OTHER)) is None


def test_a_directory_that_cannot_be_read_keeps_what_was_known_of_its_files(place: Place) -> None:
    place.write(KEY)
    assert place.key() == FULL
    place.users.rename(place.users.with_name("away"))
    place.users.symlink_to("users")
    assert place.key() == FULL
    place.users.unlink()
    assert place.key() is None


def test_a_huge_file_opens_nothing(place: Place) -> None:
    place.write(f"{KEY}\n" + "#" * LARGEST_FILE)
    assert place.key() is None


def test_a_private_key_put_there_by_mistake_is_reported_and_not_shown(
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
    # Its certificates alone say whether a security key must be touched.
    assert place.ring.authority("anyone", BLOB, SOURCE, NOW) == Authority(
        frozenset({"anyone"}), Restrictions(touch=False)
    )
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


def test_a_proven_key_is_found_by_its_fingerprint_without_hashing_the_file_again(place: Place, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    shown = subprocess.run(["ssh-keygen", "-l", "-f", key], check=True, capture_output=True, text=True).stdout.split()[
        1
    ]
    blobs = [os.urandom(32) for _ in range(1000)]
    lines = [b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + blob).decode() for blob in blobs]
    place.write("".join(f"ssh-ed25519 {line}\n" for line in lines) + (tmp_path / "key.pub").read_text())

    def seconds(work: Callable[[], object]) -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    assert place.ring.holder("alice", shown, SOURCE, NOW) is not None
    assert place.ring.holder("bob", shown, SOURCE, NOW) is None
    asking = min(seconds(lambda: place.ring.holder("alice", shown, SOURCE, NOW)) for _ in range(20))
    hashing = min(seconds(lambda: [fingerprint_of(blob) for blob in blobs]) for _ in range(20))
    assert asking < hashing / 2
