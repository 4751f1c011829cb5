"""Host keys: made once, kept, loaded as objects, refused when others could have read them."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from sshgate.access.key_line import fingerprint_of
from sshgate.errors import ConfigError
from sshgate.ssh import hostkeys
from tests.hostile.front_door import make_key


def test_first_start_makes_two_private_keys_and_later_ones_keep_them(tmp_path: Path) -> None:
    place = tmp_path / "keys" / "host"
    first = hostkeys.load(place)
    assert [pair.get_algorithm() for pair in first] == ["ssh-ed25519", "rsa-sha2-512"]
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    for name in ("ssh_host_ed25519_key", "ssh_host_rsa_key"):
        assert stat.S_IMODE((place / name).stat().st_mode) == 0o600
    assert not list(place.glob(".new-*"))
    assert [pair.public_data for pair in hostkeys.load(place)] == [pair.public_data for pair in first]


def test_fingerprint_is_what_ssh_keygen_says(tmp_path: Path) -> None:
    make_key(tmp_path / "ssh_host_ed25519_key")
    output = subprocess.run(
        ["ssh-keygen", "-lf", tmp_path / "ssh_host_ed25519_key"], check=True, capture_output=True, text=True
    ).stdout
    assert fingerprint_of(hostkeys.load(tmp_path)[0].public_data) == output.split()[1]


def test_keys_of_an_operator_are_used_as_they_are(tmp_path: Path) -> None:
    make_key(tmp_path / "ssh_host_ecdsa_key", "ecdsa")
    assert [pair.get_algorithm() for pair in hostkeys.load(tmp_path)] == ["ecdsa-sha2-nistp256"]
    assert len(list(tmp_path.iterdir())) == 2


def test_rsa_key_never_signs_with_sha1(tmp_path: Path) -> None:
    make_key(tmp_path / "ssh_host_rsa_key", "rsa", "-b", "2048")
    (pair,) = hostkeys.load(tmp_path)
    assert tuple(pair.host_key_algorithms) == (b"rsa-sha2-512", b"rsa-sha2-256")
    assert pair.sig_algorithm == b"rsa-sha2-512"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_private_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    make_key(tmp_path / "ssh_host_ed25519_key")
    (tmp_path / "ssh_host_ed25519_key").chmod(mode)
    with pytest.raises(ConfigError, match=r"others can read this private host key; run `chmod 600"):
        hostkeys.load(tmp_path)


def test_every_unusable_key_is_reported_at_once(tmp_path: Path) -> None:
    make_key(tmp_path / "ssh_host_rsa_key", "rsa", "-b", "1024")
    make_key(tmp_path / "ssh_host_ed25519_key", "ed25519")
    subprocess.run(
        ["ssh-keygen", "-q", "-p", "-N", "secret", "-f", tmp_path / "ssh_host_ed25519_key"],
        check=True,
        capture_output=True,
    )
    (tmp_path / "ssh_host_ecdsa_key").write_text("nonsense")
    (tmp_path / "ssh_host_ecdsa_key").chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        hostkeys.load(tmp_path)
    ecdsa, ed25519, rsa = caught.value.mistakes
    assert "not a private key in a known format" in ecdsa
    assert "has a passphrase" in ed25519
    assert "needs 2048 bits" in rsa


def test_directory_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot keep host keys there"):
        hostkeys.load(tmp_path / "file" / "host")
