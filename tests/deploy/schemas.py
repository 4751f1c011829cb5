"""Strict schemas of Kubernetes' objects, from the API server itself: what it does not know is an error.

The API server drops unknown fields when it is not asked to be strict, and so does kustomize: a misspelt
``readOnlyRootFileSystem`` would be a pod that can write.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from jsonschema import Draft202012Validator

Fetch = Callable[[str], str]
"""Reads a path of the API server."""


class Schemas:
    """The schemas of all kinds of a cluster, fetched by need."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._paths: dict[str, Any] = json.loads(fetch("/openapi/v3"))["paths"]
        self._documents: dict[str, Any] = {}

    def mistakes(self, thing: dict[str, Any]) -> list[str]:
        """One line for each place where the object is not as its schema says."""
        document = self._document(thing["apiVersion"])
        group, _, version = thing["apiVersion"].rpartition("/")
        wanted = {"group": group, "version": version, "kind": thing["kind"]}
        for schema in document["components"]["schemas"].values():
            if wanted in schema.get("x-kubernetes-group-version-kind", []) and "properties" in schema:
                validator = Draft202012Validator({**schema, "components": document["components"]})
                found = validator.iter_errors(thing)
                return [f"{'.'.join(map(str, error.absolute_path))}: {error.message[:200]}" for error in found]
        return [f"the cluster knows no {thing['apiVersion']} {thing['kind']}"]

    def _document(self, api_version: str) -> Any:
        path = f"apis/{api_version}" if "/" in api_version else f"api/{api_version}"
        if path not in self._documents:
            document = json.loads(self._fetch(self._paths[path]["serverRelativeURL"]))
            for schema in document["components"]["schemas"].values():
                _close(schema)
            self._documents[path] = document
        return self._documents[path]


def _close(schema: dict[str, Any]) -> None:
    """Let an object have the properties it lists and no others."""
    for part in _parts(schema):
        # RawExtension, IntOrString and their like list nothing: they are open on purpose.
        if "properties" in part and "additionalProperties" not in part:
            part["additionalProperties"] = False


def _parts(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield schema
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from _parts(schema[name])
    for child in schema.get("properties", {}).values():
        yield from _parts(child)
