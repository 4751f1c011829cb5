#!/usr/bin/env python3
"""Pack a root file system as a one-layer image archive that containerd, docker, podman and kind can load.

usage: archive.py [--user UID] [--entrypoint WORD]... IMAGE ROOTFS_DIR ARCHIVE

The same tree always gives the same bytes (sorted names, no times, owner root), hence the same image digest.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import platform
import tarfile
from pathlib import Path

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # uname's words -> the image specification's


def pack_layer(rootfs: Path) -> bytes:
    """The tree as an uncompressed tar."""

    def normalised(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mtime = 0
        return entry

    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for path in sorted(rootfs.rglob("*")):
            tar.add(path, arcname=str(path.relative_to(rootfs)), recursive=False, filter=normalised)
    return layer.getvalue()


def pack_image(image: str, layer: bytes, *, user: str, entrypoint: list[str]) -> dict[str, bytes]:
    """Members of a `docker save` archive: the configuration, the layer, and the manifest naming both."""
    machine = platform.machine()
    configuration = {
        "architecture": ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "config": {"Env": [PATH], "User": user, "Entrypoint": entrypoint, "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
        "history": [{"created_by": "tests/cluster/archive.py"}],
    }
    encoded = json.dumps(configuration, sort_keys=True).encode()
    name = hashlib.sha256(encoded).hexdigest() + ".json"
    manifest = [{"Config": name, "RepoTags": [image], "Layers": ["layer.tar"]}]
    return {name: encoded, "layer.tar": layer, "manifest.json": json.dumps(manifest).encode()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--user", default="0", help="numeric user the image runs as")
    parser.add_argument("--entrypoint", action="append", default=[], metavar="WORD")
    parser.add_argument("image")
    parser.add_argument("rootfs", type=Path)
    parser.add_argument("archive", type=Path)
    options = parser.parse_args()

    layer = pack_layer(options.rootfs)
    members = pack_image(options.image, layer, user=options.user, entrypoint=options.entrypoint)
    # Written beside and renamed: a reader never sees half an archive.
    partial = options.archive.with_suffix(f".{os.getpid()}")
    with tarfile.open(partial, "w") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    partial.rename(options.archive)


if __name__ == "__main__":
    main()
