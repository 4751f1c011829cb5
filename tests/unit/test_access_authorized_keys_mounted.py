"""Users' keys from a Secret: a mounted directory of links into a directory that the kubelet swaps as a whole."""

from __future__ import annotations

import time
from pathlib import Path

from sshgate.access.authorized_keys import Keyring
from tests.rig import keys

SOURCE = "192.0.2.1"


def bring(mount: Path, number: int, files: dict[str, str]) -> None:
    """As the kubelet does: a new directory, one rename over ``..data``, links for the new, none for the gone."""
    generation = mount / f"..2026_01_01_00_00_0{number}"
    generation.mkdir()
    for name, text in files.items():
        (generation / name).write_text(text)
        (generation / name).chmod(0o644)
    (mount / "..data_tmp").symlink_to(generation.name)
    old = (mount / "..data").readlink() if (mount / "..data").is_symlink() else None
    (mount / "..data_tmp").rename(mount / "..data")
    for name in files:
        if not (mount / name).is_symlink():
            (mount / name).symlink_to(f"..data/{name}")
    for link in mount.iterdir():
        if not link.name.startswith("..") and link.name not in files:
            link.unlink()
    if old is not None:
        for file in (mount / old).iterdir():
            file.unlink()
        (mount / old).rmdir()


def opens(ring: Keyring, user: str, line: str) -> bool:
    return ring.key(user, keys.blob_of(line), SOURCE, time.time()) is not None


def test_a_mounted_secret_is_a_directory_of_users(tmp_path: Path) -> None:
    alice, bob = keys.ed25519(), keys.ed25519()
    tmp_path.chmod(0o1777)
    bring(tmp_path, 1, {"alice": alice, "bob": bob})
    ring = Keyring(tmp_path, None)
    assert ring.users() == ["alice", "bob"]
    assert opens(ring, "alice", alice)
    assert not opens(ring, "alice", bob)
    assert not ring.empty


def test_a_change_of_the_secret_counts_at_the_next_login(tmp_path: Path) -> None:
    old, new, bob = keys.ed25519(), keys.ed25519(), keys.ed25519()
    tmp_path.chmod(0o1777)
    bring(tmp_path, 1, {"alice": old, "bob": bob})
    ring = Keyring(tmp_path, None)
    assert opens(ring, "alice", old)
    assert opens(ring, "bob", bob)
    bring(tmp_path, 2, {"alice": new, "carol": old})
    assert opens(ring, "alice", new)
    assert not opens(ring, "alice", old)
    assert not opens(ring, "bob", bob)
    assert opens(ring, "carol", old)
    assert ring.users() == ["alice", "carol"]


def test_the_kubelets_own_names_are_nobodys(tmp_path: Path) -> None:
    key = keys.ed25519()
    bring(tmp_path, 1, {"alice": key})
    ring = Keyring(tmp_path, None)
    for name in ("..data", "..2026_01_01_00_00_01", "..data/alice", "..2026_01_01_00_00_01/alice"):
        assert not opens(ring, name, key)


def test_a_secret_that_is_not_there_yet_lets_nobody_in(tmp_path: Path) -> None:
    ring = Keyring(tmp_path, None)
    assert ring.empty
    key = keys.ed25519()
    bring(tmp_path, 1, {"alice": key})
    assert opens(ring, "alice", key)
