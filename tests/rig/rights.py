"""The rights that manifests/ gives the gateway, given to the gateways of the tests, so that all tests show they do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.rig import api
from tests.rig.manifests import ROOT

ROLE = ROOT / "manifests" / "base" / "sandboxes" / "role.yaml"
ACCOUNT = "sshgate"


def role(namespace: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The Role of the manifests and its binding to an account, both in this namespace."""
    rules, binding = yaml.safe_load_all(ROLE.read_text())
    for thing in (rules, binding):
        thing["metadata"]["namespace"] = namespace
    binding["subjects"] = [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}]
    return rules, binding


def granted(rules: dict[str, Any]) -> set[tuple[str, str, str]]:
    """Every right of a role, as (verb, API group, resource)."""
    return {
        (verb, group, resource)
        for rule in rules["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def without(rules: dict[str, Any], right: tuple[str, str, str]) -> dict[str, Any]:
    """The role, but for one right."""
    left = sorted(granted(rules) - {right})
    split = [{"verbs": [verb], "apiGroups": [group], "resources": [resource]} for verb, group, resource in left]
    return {**rules, "rules": split}


def grant(namespace: str) -> None:
    """An account with exactly these rights."""
    api.ask("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": ACCOUNT}})
    for thing in role(namespace):
        api.ask("POST", _path(thing), thing)


def change(rules: dict[str, Any]) -> None:
    """Another Role in place of the one of its name."""
    api.ask("PUT", f"{_path(rules)}/{rules['metadata']['name']}", rules)


def _path(thing: dict[str, Any]) -> str:
    return f"/apis/{thing['apiVersion']}/namespaces/{thing['metadata']['namespace']}/{thing['kind'].lower()}s"


def kubeconfig(namespace: str, account: str, admin: Path, place: Path) -> Path:
    """A file that leads to the cluster as this account: the administrator's, with a token in place of a key."""
    config = yaml.safe_load(admin.read_text())
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
    token = api.ask("POST", path, {"spec": {"expirationSeconds": 12 * 3600}})["status"]["token"]
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    place.touch(mode=0o600)
    place.write_text(yaml.safe_dump(config))
    return place
