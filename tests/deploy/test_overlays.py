"""Every overlay renders, says only what the API server understands, and is accepted by it as it stands."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sshgate.config.load import load
from sshgate.providers.kubernetes import liveness
from tests.deploy.schemas import Schemas
from tests.rig import manifests
from tests.rig.manifests import NAMES, OVERLAYS, ROOT, TEST_MARK, called, kubectl, mapped_ports, objects, only, rendered

GATEWAYS = [name for name in NAMES if name != "platform"]


@pytest.fixture(scope="module")
def schemas(cluster: Path) -> Schemas:
    return Schemas(lambda path: kubectl("get", "--raw", path))


@pytest.fixture(scope="module")
def namespaces(cluster: Path) -> Iterator[None]:
    """The namespaces of all overlays: a dry run makes none, and wants them for what is in them."""
    things = [thing for overlay in NAMES for thing in objects(overlay) if thing["kind"] == "Namespace"]
    there = kubectl("get", "namespaces", "--output=name").split()
    missing = {thing["metadata"]["name"]: thing for thing in things}
    for name in [name for name in missing if f"namespace/{name}" in there]:
        del missing[name]
    try:
        for thing in missing.values():
            thing["metadata"]["labels"] |= TEST_MARK
            kubectl("create", "--filename=-", stdin=json.dumps(thing))
        yield
    finally:
        if missing:
            kubectl("delete", "namespace", "--ignore-not-found", *missing)


def test_the_overlays_are_these() -> None:
    assert NAMES == ["gpu", "ha", "k3s", "kind", "platform"]


@pytest.mark.cluster
@pytest.mark.parametrize("overlay", NAMES)
def test_no_object_says_anything_that_its_schema_does_not_know(overlay: str, schemas: Schemas) -> None:
    mistakes = {called(thing): found for thing in objects(overlay) if (found := schemas.mistakes(thing))}
    assert not mistakes


@pytest.mark.cluster
def test_a_misspelt_field_is_found_at_any_depth(schemas: Schemas) -> None:
    thing = only(objects("k3s"), "Deployment")
    context = thing["spec"]["template"]["spec"]["containers"][0]["securityContext"]
    context["readOnlyRootFileSystem"] = context.pop("readOnlyRootFilesystem")
    (mistake,) = schemas.mistakes(thing)
    assert "readOnlyRootFileSystem" in mistake
    thing["spec"]["replica"] = 1
    assert len(schemas.mistakes(thing)) == 2
    assert schemas.mistakes({"apiVersion": "v1", "kind": "Pot"}) == ["the cluster knows no v1 Pot"]


@pytest.mark.cluster
@pytest.mark.parametrize("overlay", NAMES)
def test_the_api_server_accepts_it_whole(overlay: str, namespaces: None) -> None:
    assert len(_accepted(rendered(OVERLAYS / overlay))) == len(objects(overlay))


def _accepted(text: str) -> list[str]:
    """What the API server would take, as ``kind/name``. Raises ``CalledProcessError`` for what it refuses."""
    return kubectl(
        "apply", "--dry-run=server", "--validate=strict", "--filename=-", "--output=name", stdin=text
    ).split()


@pytest.mark.parametrize("overlay", GATEWAYS)
def test_nothing_gives_the_gateway_a_right_beyond_the_sandboxes(overlay: str) -> None:
    things = objects(overlay)
    assert not [called(thing) for thing in things if thing["kind"].startswith("ClusterRole")]
    roles = {called(thing) for thing in things if thing["kind"] in ("Role", "RoleBinding")}
    assert roles == {"Role claudecode-sandboxes/sshgate", "RoleBinding claudecode-sandboxes/sshgate"}
    rules = only(things, "Role")["rules"]
    assert not [rule for rule in rules if "*" in rule["verbs"] + rule["resources"] + rule["apiGroups"]]
    assert "secrets" not in str(rules)


@pytest.mark.parametrize("overlay", NAMES)
def test_no_overlay_brings_a_secret(overlay: str) -> None:
    assert not [called(thing) for thing in objects(overlay) if thing["kind"] == "Secret"]
    assert "PRIVATE KEY" not in rendered(OVERLAYS / overlay)


@pytest.mark.parametrize("overlay", GATEWAYS)
def test_the_settings_in_the_config_map_can_be_used(overlay: str, tmp_path: Path) -> None:
    things = objects(overlay)
    file = tmp_path / "sshgate.yaml"
    # What manifests/keys makes has to be there.
    (tmp_path / "keys").mkdir()
    for name in ("web.crt", "web.key"):
        (tmp_path / "keys" / name).touch()
    file.write_text(only(things, "ConfigMap", "sshgate")["data"]["sshgate.yaml"].replace("/etc/sshgate", str(tmp_path)))
    config = load(file)
    pod = only(things, "Deployment")["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert config.sandbox.namespace == manifests.SANDBOX_NAMESPACE
    assert config.web is not None
    mounts = {mount["mountPath"].replace("/etc/sshgate", str(tmp_path)) for mount in container["volumeMounts"]}
    assert {str(config.ssh.host_keys), str(config.access.authorized_keys), str(config.web.secret.parent)} <= mounts
    # The drain, the moment before it, and the deletion of what is left after it.
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= before + config.ssh.drain + 10
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert config.telemetry.listen is not None
    assert ports == {
        "ssh": config.ssh.listen.port,
        "web": config.web.listen.port,
        "telemetry": config.telemetry.listen.port,
        "alive": liveness.PORT,
    }
    assert liveness.ADDRESS_VARIABLE in {variable["name"] for variable in container["env"]}
    classes = {thing["metadata"]["name"]: thing["value"] for thing in things if thing["kind"] == "PriorityClass"}
    for profile in config.profiles.values():
        assert classes[profile.pod_overrides["priorityClassName"]] < 0 < classes[pod["priorityClassName"]]


def settings_of(overlay: str) -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load(only(objects(overlay), "ConfigMap", "sshgate")["data"]["sshgate.yaml"])
    return settings


def test_the_settings_of_overlays_differ_where_they_have_to() -> None:
    base, k3s, gpu = (settings_of(name) for name in ("kind", "k3s", "gpu"))
    added = {name: gpu["profiles"].pop(name) for name in ("t4", "a2")}
    assert gpu == k3s
    assert added["t4"]["node_selector"] != added["a2"]["node_selector"]
    assert base.pop("web") != k3s.pop("web")
    assert base == k3s


def test_the_kind_configurations_map_both_node_ports() -> None:
    services = [thing for thing in objects("kind") if thing["kind"] == "Service"]
    ssh, web = (only(services, "Service", name)["spec"]["ports"][0]["nodePort"] for name in ("ssh", "web"))
    assert mapped_ports("manifests/overlays/kind/cluster.yaml") == {2222: ssh, 31000: web}
    # The tests' cluster by kind has them where the one-node cluster has them.
    assert mapped_ports("tests/cluster/kind.yaml") == {ssh: ssh, web: web}


def test_on_k3s_a_client_that_comes_by_the_node_keeps_its_address() -> None:
    for service in (thing for thing in objects("k3s") if thing["kind"] == "Service"):
        assert service["spec"]["type"] in ("LoadBalancer", "NodePort")
        assert service["spec"]["externalTrafficPolicy"] == "Local", called(service)


def test_three_replicas_are_spread_over_nodes() -> None:
    deployment = only(objects("ha"), "Deployment")
    assert deployment["spec"]["replicas"] == 3
    (spread,) = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert (spread["topologyKey"], spread["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "DoNotSchedule")


def test_the_other_namespaces_of_the_node_are_closed_and_bounded() -> None:
    things = objects("platform")
    names = {thing["metadata"]["name"] for thing in things if thing["kind"] == "Namespace"}
    assert names == {"papers-frontend", "papers-backend", "papers-blockchain"}
    for name in names:
        own = [thing for thing in things if thing["metadata"].get("namespace") == name]
        assert only(own, "ResourceQuota")["spec"]["hard"]["pods"]
        closed = only(own, "NetworkPolicy", "default-deny")["spec"]
        assert closed == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_one_switch_puts_sandboxes_and_gateway_into_one_namespace(tmp_path: Path) -> None:
    manifests.write_overlay(tmp_path, components=[manifests.ROOT / "manifests/components/one-namespace"])
    things = list(yaml.safe_load_all(rendered(tmp_path)))
    assert {thing["metadata"]["namespace"] for thing in things if "namespace" in thing["metadata"]} == {
        manifests.GATEWAY_NAMESPACE
    }
    assert only(things, "Namespace")["metadata"]["name"] == manifests.GATEWAY_NAMESPACE
    settings = only(things, "ConfigMap", "sshgate")["data"]["sshgate.yaml"]
    assert yaml.safe_load(settings)["sandbox"]["namespace"] == manifests.GATEWAY_NAMESPACE
    assert manifests.SANDBOX_NAMESPACE not in str(things)
    selectors = {thing["metadata"]["name"]: thing["spec"]["podSelector"] for thing in things
                 if thing["kind"] == "NetworkPolicy"}  # fmt: skip
    assert {"gateway", "sandboxes", "no-network"} == selectors.keys()
    assert all(selector.get("matchLabels") for selector in selectors.values()), "each closes only its own pods"
    assert selectors["sandboxes"]["matchExpressions"]


@pytest.mark.cluster
def test_the_api_server_accepts_the_one_namespace_whole(schemas: Schemas, namespaces: None, tmp_path: Path) -> None:
    manifests.write_overlay(tmp_path, components=[manifests.ROOT / "manifests/components/one-namespace"])
    things = list(yaml.safe_load_all(rendered(tmp_path)))
    assert not {called(thing): found for thing in things if (found := schemas.mistakes(thing))}
    assert len(_accepted(rendered(tmp_path))) == len(things)


COMPONENTS = manifests.ROOT / "manifests/components"


def test_the_broker_has_no_account_and_the_gateway_no_way_to_the_internet(tmp_path: Path) -> None:
    manifests.write_overlay(tmp_path, components=[COMPONENTS / "broker"])
    things = list(yaml.safe_load_all(rendered(tmp_path)))
    pod = only(things, "Deployment", "broker")["spec"]["template"]
    assert pod["spec"]["automountServiceAccountToken"] is False
    secrets = [volume["secret"]["secretName"] for volume in pod["spec"]["volumes"] if "secret" in volume]
    assert secrets == ["sshgate-models", "sshgate-broker"]
    gateway = only(things, "Deployment", "gateway")["spec"]["template"]["spec"]
    assert "sshgate-models" not in json.dumps(gateway)
    (volume,) = (one for one in gateway["volumes"] if one["name"] == "broker")
    shared = [item["key"] for source in volume["projected"]["sources"] for item in source["secret"]["items"]]
    assert shared == ["secret", "tls.crt"]  # not the broker's private key
    policies = {thing["metadata"]["name"]: thing["spec"] for thing in things if thing["kind"] == "NetworkPolicy"}
    assert "ipBlock" not in json.dumps(policies["gateway"]["egress"])
    assert policies["gateway"]["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "sshgate"}
    (internet,) = (rule for rule in policies["broker"]["egress"] if "ipBlock" in json.dumps(rule))
    assert {port["port"] for port in internet["ports"]} == {80, 443}
    # It reaches no address that sandboxes do not reach.
    blocks = [
        [to["ipBlock"] for rule in policies[name]["egress"] for to in rule.get("to", []) if "ipBlock" in to]
        for name in ("broker", "sandboxes")
    ]
    assert blocks[0] == blocks[1]


@pytest.mark.cluster
def test_the_api_server_accepts_the_broker(schemas: Schemas, namespaces: None, tmp_path: Path) -> None:
    manifests.write_overlay(tmp_path, components=[COMPONENTS / "broker"])
    things = list(yaml.safe_load_all(rendered(tmp_path)))
    assert not {called(thing): found for thing in things if (found := schemas.mistakes(thing))}
    assert len(_accepted(rendered(tmp_path))) == len(things)


def test_the_files_name_no_machine_and_no_registry() -> None:
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "manifests"], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout.split()  # fmt: skip
    assert listed
    images = re.findall(r"image: (\S+)", "".join((ROOT / name).read_text() for name in listed if name.endswith("yaml")))
    # Loaded into the nodes, never pulled.
    assert set(images) == {"sshgate-gateway:latest", "claudecode-sandbox:latest"}
