"""The rendered policies against a table of connections: what sandboxes and gateway reach, and who reaches them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sshgate.config.rules import MOST_WORKERS
from sshgate.lifecycle.schema import MANAGED, MANAGED_BY, NETWORK
from tests.deploy.network import Connection, Place, allowed
from tests.rig.manifests import GATEWAY_NAMESPACE, NAMES, SANDBOX_NAMESPACE, objects, only

GATEWAYS = [name for name in NAMES if name != "platform"]

MARKS = {MANAGED_BY: MANAGED, "app.kubernetes.io/name": "sshgate-sandbox"}
SANDBOX = Place("10.42.0.20", SANDBOX_NAMESPACE, MARKS)
WITHOUT = Place("10.42.0.22", SANDBOX_NAMESPACE, {**MARKS, NETWORK: "none"})
NEIGHBOUR = Place("10.42.1.21", SANDBOX_NAMESPACE, MARKS)
DNS = Place("10.42.0.3", "kube-system", {"k8s-app": "kube-dns"})
METRICS = Place("10.42.0.4", "kube-system", {"k8s-app": "metrics-server"})
TRAEFIK = Place("10.42.0.5", "kube-system", {"app.kubernetes.io/name": "traefik"})
PAPERS = Place("10.42.0.40", "papers-backend", {"app": "api"})
PRETENDER = Place("10.42.0.41", "papers-backend", {"k8s-app": "kube-dns"})
NODE = Place("192.168.1.10")
API_SERVER = Place("192.168.1.10")
SERVICE_ADDRESS = Place("10.43.0.1")
METADATA = Place("169.254.169.254")
WIRESERVER = Place("168.63.129.16")
ROUTER = Place("172.16.0.1")
INTERNET = Place("93.184.216.34")
INTERNET_6 = Place("2606:4700::1111")
USER = Place("198.51.100.7")


def gateway() -> Place:
    """A pod of the Deployment."""
    template = only(objects("k3s"), "Deployment")["spec"]["template"]
    ports = {port["name"]: port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
    return Place("10.42.0.10", GATEWAY_NAMESPACE, template["metadata"]["labels"], ports)


GATEWAY = gateway()
OTHER_GATEWAY = replace(GATEWAY, address="10.42.1.11")

OPEN = [
    ("a sandbox asks for names", Connection(SANDBOX, DNS, 53, "UDP")),
    ("a sandbox asks for long names", Connection(SANDBOX, DNS, 53)),
    ("a sandbox clones from the internet", Connection(SANDBOX, INTERNET, 443)),
    ("a sandbox pushes by ssh", Connection(SANDBOX, INTERNET, 22)),
    ("a sandbox uses IPv6", Connection(SANDBOX, INTERNET_6, 443)),
    ("a user logs in", Connection(USER, GATEWAY, 2222)),
    ("a browser comes by the node port", Connection(USER, GATEWAY, 31000)),
    ("a browser comes through Traefik", Connection(TRAEFIK, GATEWAY, 31000)),
    ("Prometheus reads metrics", Connection(Place("10.42.0.50", "monitoring"), GATEWAY, 9464)),
    ("the gateway asks the API server", Connection(GATEWAY, API_SERVER, 6443)),
    ("a gateway asks another one whether it lives", Connection(OTHER_GATEWAY, GATEWAY, 9465)),
    ("a gateway asks another one's last worker", Connection(OTHER_GATEWAY, GATEWAY, 9464 + MOST_WORKERS)),
    ("the gateway asks for names", Connection(GATEWAY, DNS, 53, "UDP")),
]
CLOSED = [
    ("a sandbox reaches its neighbour", Connection(SANDBOX, NEIGHBOUR, 8080)),
    ("a sandbox reaches the gateway", Connection(SANDBOX, GATEWAY, 2222)),
    ("a sandbox reaches the gateway's web", Connection(SANDBOX, GATEWAY, 31000)),
    ("a sandbox reaches the API server", Connection(SANDBOX, API_SERVER, 6443)),
    ("a sandbox reaches the API server by its service", Connection(SANDBOX, SERVICE_ADDRESS, 443)),
    ("a sandbox reaches the kubelet", Connection(SANDBOX, NODE, 10250)),
    ("a sandbox reaches the node's ssh", Connection(SANDBOX, NODE, 22)),
    ("a sandbox reads cloud metadata", Connection(SANDBOX, METADATA, 80)),
    ("a sandbox reads Azure's metadata", Connection(SANDBOX, WIRESERVER, 80)),
    ("a sandbox reads cloud metadata by IPv6", Connection(SANDBOX, Place("fd00:ec2::254"), 80)),
    ("a sandbox reaches a router", Connection(SANDBOX, ROUTER, 80)),
    ("a sandbox reaches another application", Connection(SANDBOX, PAPERS, 8080)),
    ("a sandbox reaches metrics", Connection(SANDBOX, METRICS, 443)),
    ("a sandbox reaches DNS pods at another port", Connection(SANDBOX, DNS, 9153)),
    ("a sandbox asks a pod that only calls itself DNS", Connection(SANDBOX, PRETENDER, 53, "UDP")),
    ("a sandbox reaches Tailscale", Connection(SANDBOX, Place("100.100.100.100"), 80)),
    ("a sandbox reaches loopback of the node", Connection(SANDBOX, Place("127.0.0.1"), 6443)),
    ("a sandbox reaches IPv4 in IPv6", Connection(SANDBOX, Place("::ffff:10.43.0.1"), 443)),
    ("a sandbox reaches unique local IPv6", Connection(SANDBOX, Place("fd00::1"), 443)),
    ("a sandbox reaches link-local IPv6", Connection(SANDBOX, Place("fe80::1"), 443)),
    ("a sandbox sends multicast", Connection(SANDBOX, Place("239.255.255.250"), 1900, "UDP")),
    ("a neighbour reaches a sandbox", Connection(NEIGHBOUR, SANDBOX, 8080)),
    ("another application reaches a sandbox", Connection(PAPERS, SANDBOX, 8080)),
    ("the internet reaches a sandbox", Connection(INTERNET, SANDBOX, 8080)),
    ("a sandbox reads the gateway's metrics", Connection(SANDBOX, GATEWAY, 9464)),
    ("a sandbox asks a gateway whether it lives", Connection(SANDBOX, GATEWAY, 9465)),
    ("another application asks a gateway whether it lives", Connection(PAPERS, GATEWAY, 9465)),
    ("a gateway asks past the last worker", Connection(OTHER_GATEWAY, GATEWAY, 9465 + MOST_WORKERS)),
    ("a gateway reads another one's metrics", Connection(OTHER_GATEWAY, GATEWAY, 9464)),
    ("the gateway reaches a sandbox past the API server", Connection(GATEWAY, SANDBOX, 22)),
    ("the gateway reaches the internet", Connection(GATEWAY, INTERNET, 443)),
    ("the gateway reaches the kubelet", Connection(GATEWAY, NODE, 10250)),
    ("the gateway reaches another application", Connection(GATEWAY, PAPERS, 8080)),
    ("a user reaches another port of the gateway", Connection(USER, GATEWAY, 8080)),
    ("another application reads the gateway's metrics", Connection(PAPERS, GATEWAY, 9464)),
    ("a sandbox without a network asks for names", Connection(WITHOUT, DNS, 53, "UDP")),
    ("a sandbox without a network reaches the internet", Connection(WITHOUT, INTERNET, 443)),
    ("a sandbox without a network uses IPv6", Connection(WITHOUT, INTERNET_6, 443)),
    ("a sandbox without a network reaches its neighbour", Connection(WITHOUT, SANDBOX, 8080)),
    ("a neighbour reaches a sandbox without a network", Connection(NEIGHBOUR, WITHOUT, 8080)),
]


# Whose settings believe what comes from the pods' network.
BELIEVING = [
    name for name in GATEWAYS if "proxy:" in only(objects(name), "ConfigMap", "sshgate")["data"]["sshgate.yaml"]
]
LIKE_TRAEFIK = [
    ("another application", Connection(PAPERS, GATEWAY, 31000)),
    ("another pod of kube-system", Connection(DNS, GATEWAY, 31000)),
    ("a pod elsewhere that only calls itself Traefik",
     Connection(Place("10.42.0.43", "papers-backend", TRAEFIK.labels), GATEWAY, 31000)),
]  # fmt: skip


@pytest.mark.parametrize("overlay", BELIEVING)
def test_of_all_pods_only_traefiks_reach_the_web(overlay: str) -> None:
    policies = [thing for thing in objects(overlay) if thing["kind"] == "NetworkPolicy"]
    assert [who for who, connection in LIKE_TRAEFIK if allowed(connection, policies)] == []
    for address in ("198.51.100.7", "192.168.1.20", "2001:db8::7"):
        assert allowed(Connection(Place(address), GATEWAY, 31000), policies)


def test_overlays_with_traefik_are_these() -> None:
    assert BELIEVING == ["gpu", "ha", "k3s"]


@pytest.mark.parametrize("overlay", GATEWAYS)
def test_what_is_needed_is_open_and_nothing_else(overlay: str) -> None:
    policies = [thing for thing in objects(overlay) if thing["kind"] == "NetworkPolicy"]
    assert [what for what, connection in OPEN if not allowed(connection, policies)] == []
    assert [what for what, connection in CLOSED if allowed(connection, policies)] == []


def test_without_the_policies_the_table_would_say_otherwise() -> None:
    assert all(allowed(connection, []) for _, connection in CLOSED)


def test_other_namespaces_of_the_node_reach_only_themselves_and_names() -> None:
    policies = [thing for thing in objects("platform") if thing["kind"] == "NetworkPolicy"]
    database = Place("10.42.0.42", "papers-backend", {"app": "db"})
    frontend = Place("10.42.0.43", "papers-frontend", {"app": "web"})
    assert allowed(Connection(PAPERS, database, 5432), policies)
    assert allowed(Connection(PAPERS, DNS, 53, "UDP"), policies)
    for closed in (
        Connection(frontend, PAPERS, 8080),
        Connection(PAPERS, frontend, 80),
        Connection(PAPERS, INTERNET, 443),
        Connection(INTERNET, frontend, 80),
        Connection(TRAEFIK, frontend, 80),
    ):
        assert not allowed(closed, policies)
