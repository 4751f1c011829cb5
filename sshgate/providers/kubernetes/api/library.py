"""kubernetes_asyncio's reading of credentials without its models, and aiohttp without the system's certificates.

The library's packages import every model of the API: a quarter of a second before each ``sshgate cp``, and some
30 MiB in a gateway, which speaks raw JSON. So its two outer packages are entered without running them, and urllib3,
which it imports for one function, is loaded when that is called. If another version of the library does not bear
that, it is imported whole.
"""

from __future__ import annotations

import importlib
import importlib.util
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple

_PACKAGES = ("kubernetes_asyncio", "kubernetes_asyncio.client")


class Library(NamedTuple):
    """The parts in use: a class and two modules."""

    Configuration: Any
    kube_config: Any
    incluster_config: Any


def load() -> Library:
    """Import the library; what was imported before is used as it is."""
    if _PACKAGES[0] not in sys.modules:
        try:
            _enter()
        except (ImportError, AttributeError):
            for name in [name for name in sys.modules if name.partition(".")[0] == _PACKAGES[0]]:
                del sys.modules[name]
    return Library(
        importlib.import_module("kubernetes_asyncio.client").Configuration,
        importlib.import_module("kubernetes_asyncio.config.kube_config"),
        importlib.import_module("kubernetes_asyncio.config.incluster_config"),
    )


def _enter() -> None:
    """Put the two packages in place as if they had been run, with what the configuration needs of them."""
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise ImportError(name)
        sys.modules[name] = importlib.util.module_from_spec(spec)
    client: Any = sys.modules["kubernetes_asyncio.client"]
    with _loaded_when_used("urllib3"):
        client.Configuration = importlib.import_module("kubernetes_asyncio.client.configuration").Configuration
    # kube_config names it for a function that nobody here calls; the class itself would import the models.
    client.ApiClient = ModuleType("kubernetes_asyncio.client.ApiClient")
    importlib.import_module("kubernetes_asyncio.config.kube_config")


@contextmanager
def _loaded_when_used(name: str) -> Iterator[None]:
    """What is imported meanwhile gets a stand-in of this name: it imports the module when something of it is used."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = later = ModuleType(name)
    later.__getattr__ = lambda attribute: getattr(importlib.import_module(name), attribute)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del sys.modules[name]


@contextmanager
def without_certificates() -> Iterator[None]:
    """Import aiohttp in here: it makes two TLS contexts at once, each of which would read all that the system trusts.

    That is a tenth of a small ``sshgate cp``, which uses neither but one of the kubeconfig. These two trust nobody.
    """
    ssl.SSLContext.set_default_verify_paths = lambda self: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        del ssl.SSLContext.set_default_verify_paths
