"""A namespace with gateways of one test: what pools and logins do there, in the test's words."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from sshgate.lifecycle import schema as labels
from tests.rig.cluster import BUSYBOX, Namespace
from tests.rig.gateway import Gateway, configured
from tests.rig.ssh import Ssh, make_key
from tests.rig.waiting import until

FILLED = 60.0

Pod = dict[str, Any]


class Place:
    """The namespace, the gateways, and one user ``dev`` who may log in to each of them."""

    def __init__(self, space: Namespace, directory: Path) -> None:
        self.space = space
        self._directory = directory
        self._gateways: list[Gateway] = []
        self._key = make_key(directory / "id")

    def __enter__(self) -> Place:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for gateway in self._gateways:
            if gateway.process is not None and gateway.process.poll() is None:
                gateway.process.kill()
                gateway.process.wait()
            if error is not None:
                print(f"--- the log of {gateway.place.name}\n{gateway.log()[-4000:]}")

    def gateway(self, name: str = "one", **sections: Any) -> Gateway:
        """A running gateway; a small image and no settle age unless the test says so."""
        directory = self._directory / f"{name}-{len(self._gateways)}"
        directory.mkdir()
        profile = {"image": BUSYBOX, "settle": "0s", "shell": "/bin/sh", **sections.pop("profile", {})}
        sections["profiles"] = {"default": profile, **sections.get("profiles", {})}
        made = configured(directory, self.space, **sections)
        (made.users / "dev").write_text(self._key + "\n")
        self._gateways.append(made)
        made.start()
        return made

    def user(self, gateway: Gateway, login: str = "dev") -> Ssh:
        """The user at this gateway."""
        for name in ("id", "id.pub"):
            if not (gateway.place / name).exists():
                shutil.copy(self._directory / name, gateway.place / name)
        return Ssh(gateway.place, gateway.port, login)

    def stop(self) -> None:
        """Stop all gateways that still run, as an operator does; each must end well."""
        for gateway in self._gateways:
            gateway.stop()

    def pods(self, state: str | None = None) -> list[Pod]:
        """The pods nobody has deleted, of this state."""
        return [
            pod
            for pod in self.space.pods()
            if "deletionTimestamp" not in pod["metadata"] and state in (None, mark(pod, labels.STATE))
        ]

    def ready(self) -> list[Pod]:
        """The warm pods that could be handed out."""
        return [pod for pod in self.pods(labels.WARM) if _is_ready(pod)]

    def filled(self, size: int, limit: float = FILLED) -> list[Pod]:
        """Wait until exactly so many warm pods are ready and no other is there."""

        def full() -> list[Pod] | bool:
            ready, warm = self.ready(), self.pods(labels.WARM)
            return len(ready) == len(warm) == size and (ready or True)

        found = until(full, limit, f"a pool of {size}")
        return found if isinstance(found, list) else []


@contextmanager
def staying(*users: Ssh) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A client for each user whose program has begun and stays until the body ends."""
    clients = [ssh.start("echo up; exec sleep 600") for ssh in users]
    try:
        for client in clients:
            assert client.stdout is not None
            output = client.stdout.readline()
            assert output == b"up\n", (output, client.stderr and client.stderr.read())
        yield clients
    finally:
        for client in clients:
            client.kill()
            client.communicate()


def mark(pod: Pod, key: str) -> str | None:
    """A label of it."""
    found: str | None = pod["metadata"].get("labels", {}).get(key)
    return found


def note(pod: Pod, key: str) -> str | None:
    """An annotation of it."""
    found: str | None = pod["metadata"].get("annotations", {}).get(key)
    return found


def names(pods: list[Pod]) -> set[str]:
    """Their names."""
    return {pod["metadata"]["name"] for pod in pods}


def _is_ready(pod: Pod) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
