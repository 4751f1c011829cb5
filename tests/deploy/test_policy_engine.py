"""The policies of the manifests as k3s's engine enforces them: connections between real pods."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.rig import cluster as rig
from tests.rig.cluster import IMAGE, Namespace
from tests.rig.deployed import SSH_PORT, WEB_PORT, Deployed
from tests.rig.forwarding import connected, exchanged, local_port, python, session
from tests.rig.manifests import kubectl
from tests.rig.outside import GREETER, INTERNET, outside
from tests.rig.ssh import Ssh
from tests.rig.waiting import until

pytestmark = pytest.mark.cluster

PORT = 8080
METADATA, ROUTER = "169.254.169.254", "172.31.255.7"
DNS = "10.43.0.10"
# A sandbox's policy takes effect some moments after its start.
FENCED = 30.0
# Tries all at once, 2 s each at most: the names of those that can be opened. A name ending in " (UDP)" is a query.
PROBE = """
import asyncio, json, socket, sys
QUERY = b"\\x12\\x34\\x01\\0\\0\\1\\0\\0\\0\\0\\0\\0\\nkubernetes\\7default\\3svc\\7cluster\\5local\\0\\0\\1\\0\\1"
async def opens(name, host, port):
    loop, udp = asyncio.get_running_loop(), name.endswith("(UDP)")
    kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as s:
        s.setblocking(False)
        try:
            async with asyncio.timeout(2):
                await loop.sock_connect(s, socket.getaddrinfo(host, port, type=kind)[0][4])
                if udp:
                    await loop.sock_sendall(s, QUERY)
                    await loop.sock_recv(s, 512)
        except OSError:
            return None
        return name
async def main(rows):
    print(json.dumps([name for name in await asyncio.gather(*(opens(*row) for row in rows)) if name]))
asyncio.run(main(json.loads(sys.argv[1])))
"""
Row = tuple[str, str, int]
"""A name, an address, a port."""
OPEN: list[Row] = [
    ("names (UDP)", DNS, 53),
    ("long names", DNS, 53),
    ("the internet", INTERNET, 443),
    ("the internet's ssh", INTERNET, 22),
]
# Not for other applications either.
FOR_NOBODY = {
    "another sandbox", "the gateway's web", "the gateway's web by the node's port", "the gateway's metrics",
    "whether the gateway lives",
}  # fmt: skip
BY_LINK = {"another sandbox by its link", "the node by its link"}


@dataclass(frozen=True)
class Scene:
    """Where connections begin, and what is closed for a sandbox."""

    sandbox: Ssh
    neighbour: Ssh
    application: Namespace
    closed: list[Row]

    def from_sandbox(self, rows: list[Row], user: Ssh | None = None) -> set[str]:
        """The names of those of the rows that can be opened."""
        ended = (user or self.sandbox).run(python(PROBE, shlex.quote(json.dumps(rows))))
        assert ended.status == 0, ended.both
        return set(json.loads(ended.out))

    def from_application(self, rows: list[Row]) -> set[str]:
        words = ("exec", "application", "--", "python3", "-c", PROBE, json.dumps(rows))
        return set(json.loads(self.application.kubectl(*words)))


@pytest.fixture(scope="module")
def scene(deployed: Deployed, dev: Ssh) -> Iterator[Scene]:
    if not rig.is_our_own():
        pytest.skip("the stand-in for the internet is reached from a node on this machine only")
    sandbox, neighbour = dev.as_user("dev=sandbox"), dev.as_user("dev=neighbour")
    with ExitStack() as stack:
        stack.enter_context(outside((22, 80, 443), (METADATA, ROUTER)))
        node = stack.enter_context(subprocess.Popen([sys.executable, "-c", GREETER, str(PORT)], stdout=-1))
        stack.callback(node.kill)
        stack.enter_context(session(neighbour, python(GREETER, str(PORT))))
        application = stack.enter_context(rig.namespace())
        application.apply(_application())
        application.kubectl("wait", "--for=condition=Ready", "pod/application", "--timeout=60s")
        made = Scene(sandbox, neighbour, application, closed(deployed, neighbour, application))
        service = made.closed[:1]
        until(lambda: not made.from_sandbox(service), FENCED, "the policy in the sandbox")
        yield made
    for user in (sandbox, neighbour):
        user.run("end", options=("-s",))


def closed(deployed: Deployed, neighbour: Ssh, application: Namespace) -> list[Row]:
    gateway = deployed.gateway.pods()[0]["status"]["podIP"]
    (other,) = (pod["status"]["podIP"] for pod in application.pods())
    words = ("get", "endpointslices", "kubernetes", "--output=jsonpath={.endpoints[0].addresses[0]}")
    api_server = kubectl("--namespace=default", *words)
    name_server = kubectl("--namespace=kube-system", "get", "pods", "--selector=k8s-app=kube-dns", "--output=json")
    found = neighbour.run("hostname -i; cat /proc/net/if_inet6").out.decode()
    return [
        ("the API server's service", "10.43.0.1", 443),
        ("the API server", api_server, 6443),
        ("metadata", METADATA, 80),
        ("a private network", ROUTER, 80),
        ("the node", deployed.host, PORT),
        ("the node by the pods' bridge", "10.42.0.1", PORT),
        ("the node by its link", _link_address(Path("/proc/net/if_inet6").read_text(), "cni0"), PORT),
        ("another sandbox", found.split()[0], PORT),
        ("another sandbox by its link", _link_address(found, "eth0"), PORT),
        ("another application", other, PORT),
        ("another port of the name server", json.loads(name_server)["items"][0]["status"]["podIP"], 8181),
        ("the gateway", gateway, SSH_PORT),
        ("the gateway's web", gateway, WEB_PORT),
        ("the gateway by the node's port", deployed.host, SSH_PORT),
        ("the gateway's web by the node's port", deployed.host, WEB_PORT),
        ("the gateway's metrics", gateway, 9464),
        ("whether the gateway lives", gateway, 9465),
    ]


def _link_address(table: str, interface: str) -> str:
    """The link-local address in a /proc/net/if_inet6, as somebody on the same link writes it."""
    (digits,) = (line.split()[0] for line in table.splitlines() if line.startswith("fe80") and line.endswith(interface))
    return ":".join(digits[at : at + 4] for at in range(0, 32, 4)) + "%eth0"


def _application() -> dict[str, Any]:
    container = {
        "name": "application", "image": IMAGE, "imagePullPolicy": "Never",
        "command": ["python3", "-c", GREETER, str(PORT)],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }  # fmt: skip
    security = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"terminationGracePeriodSeconds": 0, "securityContext": security, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "application"}, "spec": spec}


def test_a_sandbox_reaches_names_and_the_internet_and_nothing_else(scene: Scene) -> None:
    assert scene.from_sandbox(OPEN + scene.closed) == {name for name, *_ in OPEN}


def test_all_that_is_closed_for_sandboxes_is_there(scene: Scene) -> None:
    """Other pods reach it; what they may not reach either, this machine or the sandbox itself does."""
    rows = {name: row for row in scene.closed for name in row[:1]}
    assert scene.from_application(scene.closed) == rows.keys() - FOR_NOBODY - BY_LINK
    own = json.dumps([rows[name] for name in FOR_NOBODY])
    ran = subprocess.run([sys.executable, "-c", PROBE, own], capture_output=True, check=True, timeout=30)
    assert set(json.loads(ran.stdout)) == FOR_NOBODY
    assert scene.from_sandbox([rows["another sandbox by its link"]], scene.neighbour)
    host, port = rows["the node by its link"][1:]
    here = [["node", host.replace("%eth0", "%cni0"), port]]
    ran = subprocess.run([sys.executable, "-c", PROBE, json.dumps(here)], capture_output=True, check=True, timeout=30)
    assert json.loads(ran.stdout) == ["node"]


def test_forwards_lead_into_the_sandbox_and_with_elsewhere_where_the_policy_lets_it(
    scene: Scene, dev: Ssh, tmp_path: Path
) -> None:
    port = local_port()
    with session(scene.neighbour, "echo up; exec sleep 60", "-L", f"{port}:localhost:{PORT}"):
        assert exchanged(connected(port), b"") == b"hello"

    def forwarded(user: Ssh, host: str, port: int) -> bytes:
        return user.run(options=("-W", f"{host}:{port}")).out

    assert forwarded(scene.neighbour, "localhost", PORT) == b"hello"
    assert forwarded(scene.neighbour, INTERNET, 443) == b""
    wide = dev.as_user("dev+wide=wide")
    assert wide.run("true").status == 0
    until(lambda: not scene.from_sandbox(scene.closed[:1], wide), FENCED, "the policy in the sandbox")
    assert forwarded(wide, INTERNET, 443) == b"hello"
    for name, host, closed_port in scene.closed:
        if name in ("the node", "another application", "metadata"):
            assert forwarded(wide, host, closed_port) == b"", name
    wide.run("end", options=("-s",))
