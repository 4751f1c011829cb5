"""The judge of connections follows the reference of networking.k8s.io/v1."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deploy.network import Connection, Place, Policy, allowed

WEB = Place("10.1.0.1", "shop", {"app": "web"}, {"http": 8080})
DATABASE = Place("10.1.0.2", "shop", {"app": "db"})
STRANGER = Place("10.1.9.9", "elsewhere", {"app": "web"})
OUTSIDE = Place("203.0.113.5")


def policy(selector: dict[str, Any], **spec: Any) -> Policy:
    return {"metadata": {"name": "p", "namespace": "shop"}, "spec": {"podSelector": selector, **spec}}


DENY_IN = policy({}, policyTypes=["Ingress"])
DENY_OUT = policy({}, policyTypes=["Egress"])


def test_without_a_policy_everything_is_open() -> None:
    assert allowed(Connection(STRANGER, WEB, 80), [])


def test_a_selected_pod_is_closed_in_that_direction_only() -> None:
    assert not allowed(Connection(STRANGER, WEB, 80), [DENY_IN])
    assert allowed(Connection(WEB, STRANGER, 80), [DENY_IN])
    assert not allowed(Connection(WEB, STRANGER, 80), [DENY_OUT])


def test_policies_of_another_namespace_do_not_count() -> None:
    assert allowed(Connection(WEB, STRANGER, 80), [DENY_IN])


def test_both_ends_have_to_agree() -> None:
    out = policy({"matchLabels": {"app": "web"}}, policyTypes=["Egress"], egress=[{"to": [{"podSelector": {}}]}])
    assert allowed(Connection(WEB, DATABASE, 5432), [out])
    assert not allowed(Connection(WEB, DATABASE, 5432), [out, DENY_IN])


def test_rules_of_several_policies_add_up() -> None:
    web = policy({}, ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}])
    assert allowed(Connection(WEB, DATABASE, 5432), [DENY_IN, web])


def test_a_pod_selector_alone_means_pods_of_the_same_namespace() -> None:
    web = policy({}, ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}])
    assert not allowed(Connection(STRANGER, DATABASE, 5432), [web])


def test_two_selectors_in_one_peer_both_have_to_fit_and_in_two_peers_either() -> None:
    namespace = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "elsewhere"}}}
    pod = {"podSelector": {"matchLabels": {"app": "db"}}}
    both = policy({}, ingress=[{"from": [{**namespace, **pod}]}])
    either = policy({}, ingress=[{"from": [namespace, pod]}])
    assert not allowed(Connection(STRANGER, WEB, 80), [both])
    assert allowed(Connection(STRANGER, WEB, 80), [either])
    assert allowed(Connection(DATABASE, WEB, 80), [either])


def test_a_block_of_addresses_has_exceptions_and_a_version() -> None:
    block = {"ipBlock": {"cidr": "203.0.113.0/24", "except": ["203.0.113.128/25"]}}
    out = policy({}, policyTypes=["Egress"], egress=[{"to": [block]}])
    assert allowed(Connection(WEB, OUTSIDE, 443), [out])
    assert not allowed(Connection(WEB, Place("203.0.113.200"), 443), [out])
    assert not allowed(Connection(WEB, Place("2001:db8::1"), 443), [out])


@pytest.mark.parametrize(
    ("ports", "port", "protocol", "passes"),
    [
        ([{"port": 53, "protocol": "UDP"}], 53, "UDP", True),
        ([{"port": 53, "protocol": "UDP"}], 53, "TCP", False),
        ([{"port": 8080}], 8080, "TCP", True),
        ([{"port": "http"}], 8080, "TCP", True),
        ([{"port": "other"}], 8080, "TCP", False),
        ([{"port": 8000, "endPort": 8100}], 8080, "TCP", True),
        ([{"port": 8000, "endPort": 8100}], 8101, "TCP", False),
        ([{"protocol": "TCP"}], 1, "TCP", True),
        ([], 1, "UDP", True),
    ],
)
def test_ports_match_by_number_name_range_and_protocol(
    ports: list[dict[str, Any]], port: int, protocol: str, passes: bool
) -> None:
    inward = policy({}, ingress=[{"ports": ports}])
    assert allowed(Connection(OUTSIDE, WEB, port, protocol), [inward]) is passes


def test_egress_rules_without_policy_types_close_egress_too() -> None:
    assert not allowed(Connection(WEB, OUTSIDE, 80), [policy({}, egress=[{"ports": [{"port": 443}]}])])
    assert allowed(Connection(WEB, OUTSIDE, 80), [policy({}, ingress=[])])


@pytest.mark.parametrize(
    ("operator", "values", "selected"),
    [("In", ["web"], True), ("NotIn", ["web"], False), ("Exists", [], True), ("DoesNotExist", [], False)],
)
def test_expressions_select_by_label(operator: str, values: list[str], selected: bool) -> None:
    expression = {"key": "app", "operator": operator, "values": values}
    closed = policy({"matchExpressions": [expression]}, policyTypes=["Ingress"])
    assert allowed(Connection(STRANGER, WEB, 80), [closed]) is not selected
