"""Who may talk to whom under a set of NetworkPolicies, as the API defines it. Pure.

test_policy_engine.py tries one overlay with a real engine; here all of them are judged. The rules (reference of
networking.k8s.io/v1): a pod that no policy selects for a direction is open in it; one that is selected allows what
any of those policies' rules allows, and nothing else; a connection needs the leave of both ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any, Literal

Policy = Mapping[str, Any]
Direction = Literal["Ingress", "Egress"]


@dataclass(frozen=True)
class Place:
    """An end of a connection: a pod with its namespace and labels, or, without a namespace, an address outside."""

    address: str
    namespace: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    """Its container ports by name."""

    @property
    def namespace_labels(self) -> dict[str, str]:
        """What the API server itself puts on every namespace."""
        return {"kubernetes.io/metadata.name": self.namespace or ""}


@dataclass(frozen=True)
class Connection:
    source: Place
    destination: Place
    port: int
    protocol: str = "TCP"


def allowed(connection: Connection, policies: Sequence[Policy]) -> bool:
    """Whether it can be made."""
    return _leaves(connection, policies) and _enters(connection, policies)


def _leaves(connection: Connection, policies: Sequence[Policy]) -> bool:
    return _passes(connection.source, connection.destination, "Egress", connection, policies)


def _enters(connection: Connection, policies: Sequence[Policy]) -> bool:
    return _passes(connection.destination, connection.source, "Ingress", connection, policies)


def _passes(own: Place, other: Place, direction: Direction, connection: Connection, policies: Sequence[Policy]) -> bool:
    mine = [policy for policy in policies if _selects(policy, own) and direction in _types(policy)]
    rules = [rule for policy in mine for rule in policy["spec"].get(direction.lower()) or []]
    peers = "to" if direction == "Egress" else "from"
    return not mine or any(
        _port_fits(rule.get("ports"), connection) and _peer_fits(rule.get(peers), other, own) for rule in rules
    )


def _types(policy: Policy) -> list[str]:
    spec = policy["spec"]
    # Left out, it is ingress, and egress only where there are rules for it.
    return list(spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])])


def _selects(policy: Policy, place: Place) -> bool:
    return policy["metadata"]["namespace"] == place.namespace and matches(policy["spec"]["podSelector"], place.labels)


def _peer_fits(peers: list[dict[str, Any]] | None, place: Place, own: Place) -> bool:
    # No list, or an empty one, is everybody.
    return not peers or any(_is(peer, place, own) for peer in peers)


def _is(peer: dict[str, Any], place: Place, own: Place) -> bool:
    if block := peer.get("ipBlock"):
        inside = _within(place.address, block["cidr"])
        return inside and not any(_within(place.address, out) for out in block.get("except", ()))
    if place.namespace is None:
        return False
    if "namespaceSelector" in peer:
        here = matches(peer["namespaceSelector"], place.namespace_labels)
    else:
        here = place.namespace == own.namespace
    return here and matches(peer.get("podSelector", {}), place.labels)


def _within(address: str, network: str) -> bool:
    return ip_address(address) in ip_network(network)  # false between versions


def _port_fits(ports: list[dict[str, Any]] | None, connection: Connection) -> bool:
    return not ports or any(_is_port(port, connection) for port in ports)


def _is_port(entry: dict[str, Any], connection: Connection) -> bool:
    if entry.get("protocol", "TCP") != connection.protocol:
        return False
    first = entry.get("port")
    if isinstance(first, str):
        first = connection.destination.ports.get(first, -1)
    return first is None or first <= connection.port <= entry.get("endPort", first)


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects these labels; an empty one selects all."""
    exact = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return exact and all(_holds(expression, labels) for expression in selector.get("matchExpressions", ()))


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values", ())
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case operator:
            raise ValueError(f"there is no operator {operator!r}")
