"""The real parts that are measured: gateways, a pod for the baseline, an sshd."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, TypeVar

from sshgate.lifecycle.membership import RENEW
from tests.rig import cluster
from tests.rig.cluster import IMAGE, Namespace
from tests.rig.gateway import Gateway, free_port
from tests.rig.ssh import Ssh, make_key
from tests.rig.sshd import sshd

LIMITS = {"sandboxes_per_user": 300, "sandboxes": 500, "connections_per_source": 500, "unauthenticated": 500}
BASE_POD = "baseline"

T = TypeVar("T")


class Scene:
    """Everything that rows share, made when first asked for and removed at the end."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.place = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="sshgate-bench-")))
        self._namespace: Namespace | None = None
        self._users: dict[str, tuple[Gateway, Ssh]] = {}
        self._shared: dict[Any, Any] = {}

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def namespace(self) -> Namespace:
        """A namespace with a running pod ``baseline`` of the same image and restrictions."""
        if self._namespace is None:
            if reason := cluster.why_not():
                raise SystemExit(f"bench: {reason}")
            self._namespace = self._stack.enter_context(cluster.namespace())
            self._namespace.apply(pod(BASE_POD))
            self._namespace.kubectl("wait", "--for=condition=Ready", f"pod/{BASE_POD}", "--timeout=60s")
        return self._namespace

    def empty_namespace(self) -> Namespace:
        """Another one, with nothing in it."""
        return self._stack.enter_context(cluster.namespace())

    def shared(self, make: Callable[[Scene], AbstractContextManager[T]]) -> T:
        """What this makes; the same for every row."""
        if make not in self._shared:
            self._shared[make] = self._stack.enter_context(make(self))
        made: T = self._shared[make]
        return made

    def gateway(
        self,
        provider: str,
        web: bool = False,
        telemetry: dict[str, Any] | None = None,
        policy: dict[str, Any] | None = None,
        workers: int = 1,
        sections: dict[str, Any] | None = None,
        **profile: Any,
    ) -> tuple[Gateway, Ssh]:
        """A running gateway and a user at it; the same for the same question. ``web``: with the browser's door;
        ``policy``: in a namespace of its own with this NetworkPolicy; ``sections``: more of its settings."""
        key = repr((provider, web, telemetry, policy, workers, sections, sorted(profile.items())))
        if key not in self._users:
            self._users[key] = self._start(provider, web, telemetry or {}, policy, workers, sections or {}, profile)
        return self._users[key]

    def _start(
        self,
        provider: str,
        web: bool,
        telemetry: dict[str, Any],
        policy: dict[str, Any] | None,
        workers: int,
        sections: dict[str, Any],
        profile: dict[str, Any],
    ) -> tuple[Gateway, Ssh]:
        place = Path(tempfile.mkdtemp(dir=self.place))
        (place / "users").mkdir()
        (place / "users" / "dev").write_text(make_key(place / "id") + "\n")
        port = free_port()
        sandbox: dict[str, Any] = {"provider": provider}
        if provider == "kubernetes":
            # Gateways that share a namespace share its pools, and one of them refills by its own configuration.
            space = self.empty_namespace() if policy or "warm" in profile else self.namespace
            if policy:
                space.apply(policy)
            sandbox |= {"kubeconfig": str(space.kubeconfig), "namespace": space.name, "gateway": f"bench-{port}"}
            profile = {"image": IMAGE, "resources": _RESOURCES, **profile}
        settings = {
            "ssh": {"listen": f"127.0.0.1:{port}", "host_keys": "host", "drain": "1s"},
            "access": {"authorized_keys": "users"},
            "sandbox": sandbox,
            "profiles": {"default": profile},
            "limits": LIMITS,
            "log": {"level": "error"},
            "telemetry": telemetry,
            "workers": workers,
            **sections,
        }
        if web:
            settings["web"] = {"listen": f"127.0.0.1:{free_port()}", "sessions_per_user": 500}
        gateway = Gateway(place, settings, port)
        gateway.start()
        self._stack.callback(gateway.stop)
        # Its thread for the Lease opens a connection of its own at the first renewal, which costs 256 KiB once.
        time.sleep(RENEW + 1)
        return gateway, Ssh(place, port)

    def kubectl_exec(self, *command: str, stdin: bool = False) -> list[str]:
        """The command line of ``kubectl exec`` into the baseline pod; without a shell around kubectl."""
        flags = ["-i"] if stdin else []
        program = _kubectl()
        space = self.namespace
        words = ["--kubeconfig", str(space.kubeconfig), "--namespace", space.name, "exec", *flags, BASE_POD, "--"]
        return [*program, *words, *command]

    def sshd(self) -> AbstractContextManager[Ssh]:
        """OpenSSH's server on loopback, and a user at it: root, or the user who runs this."""
        return sshd(Path(tempfile.mkdtemp(dir=self.place)))


_RESOURCES = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}}


def _kubectl() -> list[str]:
    """A kubectl to run without detours: the test cluster's own, else the one on the PATH."""
    own = Path(os.environ.get("SSHGATE_CLUSTER_DIR", "/var/lib/sshgate-cluster"), "hyperkube")
    return [str(own), "kubectl"] if own.exists() else [shutil.which("kubectl") or "kubectl"]


def pod(name: str, *command: str) -> dict[str, Any]:
    """A pod of the same image and restrictions as sandboxes; without a ``command`` it runs as the image does."""
    container: dict[str, Any] = {
        "name": "shell",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "resources": _RESOURCES,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    security = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"restartPolicy": "Never", "automountServiceAccountToken": False, "securityContext": security}
    if command:
        container["command"] = command
    metadata = {"name": name}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**spec, "containers": [container]}}
