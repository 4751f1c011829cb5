"""A real gateway as a process of its own, with files of its own."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sshgate.providers.local import cgroup
from sshgate.providers.local.provider import ETC_PREFIX
from tests.rig import keys
from tests.rig.cluster import IMAGE, RUNTIME_CLASS, Namespace
from tests.rig.processes import Seen, alive, descendants, resident
from tests.rig.waiting import until

# The gateway's own drain, short here, and what it takes to delete the sandboxes after it.
DRAIN = 3.0
STOP_LIMIT = DRAIN + 12.0
GONE_LIMIT = 10.0

# Room for tests that open many at once; limits have tests of their own.
LIMITS = {"sandboxes_per_user": 60, "sandboxes": 200, "connections_per_source": 300, "unauthenticated": 300}
SMALL = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}}
# Above those of services, below Kubernetes' node ports and those that Linux gives away (ip_local_port_range).
PORTS = (12_000, 30_000)
# Lines of a gateway's log that are shown below a test that failed.
LAST_LINES = 40

_started: list[Gateway] = []


def running() -> list[Gateway]:
    """The gateways of this process of tests that have not ended."""
    _started[:] = [one for one in _started if one.process is not None and one.process.poll() is None]
    return _started


@dataclass
class Gateway:
    """``sshgate serve``, configured from ``settings`` (the configuration file as a mapping)."""

    place: Path
    settings: Mapping[str, Any]
    port: int
    host: str = "127.0.0.1"
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def users(self) -> Path:
        """The directory of authorized_keys files."""
        return self.place / "users"

    @property
    def pid(self) -> int:
        assert self.process is not None, "start() first"
        return self.process.pid

    @property
    def memory(self) -> int:
        """Resident bytes now."""
        return resident(self.pid)

    def log(self) -> str:
        """All that it has logged, over all its runs."""
        return (self.place / "log").read_text(errors="replace")

    def last_lines(self) -> str:
        return "\n".join(self.log().splitlines()[-LAST_LINES:])

    def start(self) -> None:
        """Returns when it answers with its banner. Raises ``AssertionError`` with its log when it does not."""
        config = self.place / "sshgate.yaml"
        config.write_text(yaml.safe_dump(dict(self.settings)))
        with (self.place / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sshgate", "serve", "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.place,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )
        if not any(one is self for one in running()):
            _started.append(self)
        until(self._answers, 30, "the gateway answering")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the gateway ended:\n{self.log()}"
        try:
            with socket.create_connection((self.host, self.port), 1) as connection:
                return connection.recv(8) == b"SSH-2.0-"
        except OSError:
            return False

    def stop(self) -> None:
        """TERM; it must end with 0 within its drain, and leave no process and no file."""
        if self.process is None or self.process.poll() is not None:
            return
        below = descendants(self.pid)
        self.process.terminate()
        try:
            status = self.process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            below |= descendants(self.pid)
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the gateway did not end within {STOP_LIMIT:g} s of TERM:\n{self.log()}") from None
        assert status == 0, f"the gateway ended with {status}:\n{self.log()}"
        nothing_left(below)
        assert left_files(self.pid) == []

    def kill(self) -> set[Seen]:
        """KILL; returns what ran below it."""
        assert self.process is not None
        below = descendants(self.pid)
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        return below


def nothing_left(below: set[Seen], limit: float = GONE_LIMIT) -> None:
    """Wait until none of these processes runs any more."""
    until(lambda: not alive(below), limit, f"the end of {alive(below)}")


def left_files(pid: int) -> list[Path]:
    """What the gateway ``pid`` has for its local sandboxes in directories that others use too."""
    place = cgroup.here()
    groups = list(place.parent.glob(f"{cgroup.PREFIX}{pid}-*")) if place is not None else []
    return groups + list(Path(tempfile.gettempdir()).glob(f"{ETC_PREFIX}{pid}-*"))


def configured(place: Path, space: Namespace | None, host: str = "127.0.0.1", **sections: Any) -> Gateway:
    """A gateway with its files in ``place``, not started yet. Without a namespace its sandboxes are local.

    ``sections`` are parts of its configuration, merged over what tests need. SSHGATE_LOOP picks its event loop.
    """
    (place / "users").mkdir()
    keys.of_host(place / "host")
    port = free_port()
    provider = "local" if space is None else "kubernetes"
    settings: dict[str, Any] = {
        "ssh": {"listen": f"{host}:{port}", "host_keys": "host", "drain": f"{DRAIN:g}s"},
        "access": {"authorized_keys": "users"},
        "sandbox": {"provider": provider, "gateway": f"test-{port}"},
        "profiles": {"default": {}},
        "limits": LIMITS,
    }
    if space is not None:
        settings["sandbox"] |= {"kubeconfig": str(space.gateway), "namespace": space.name}
        settings["profiles"]["default"] = {"image": IMAGE, "resources": SMALL}
        if RUNTIME_CLASS:
            settings["profiles"]["default"]["runtime_class"] = RUNTIME_CLASS
    return Gateway(place, _merge(settings, sections), port, host)


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        merged[name] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def free_port() -> int:
    """A port on loopback that nothing listens on now.

    None that the kernel gives to connections and to those who ask for any port: a gateway that was killed could not
    have it back.
    """
    while True:
        port = random.SystemRandom().randrange(*PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
