"""Address and credentials of the API server, read with kubernetes_asyncio.

Importing the library takes a tenth of a second even without its models (see ``library``), so only this module
imports it, and only when needed.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sshgate.config.model import SandboxPlace
from sshgate.errors import Unavailable
from sshgate.providers.kubernetes.api import library
from sshgate.sandbox import temporary

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
# Of the directory that a client certificate from a kubeconfig is in while it is loaded.
PREFIX = "sshgate-kubeconfig-"


@dataclass(frozen=True)
class Credentials:
    """The configuration as read at one moment. ``tls`` is ``None`` for a plain HTTP server."""

    host: str
    tls: ssl.SSLContext | None
    server_hostname: str | None
    proxy: str | None
    material: str
    """A digest of what ``tls`` was made from; equal digests mean the same trusted CAs and client certificate."""
    source: str
    """Where the configuration was read, for messages."""
    configuration: Any

    def __repr__(self) -> str:
        return f"<Credentials {self.host} from {self.source}>"

    async def headers(self) -> dict[str, str]:
        """The Authorization header, if there is a token. A service account's token is read again every minute."""
        token = await self.configuration.get_api_key_with_prefix("BearerToken")
        return {"Authorization": token.strip()} if token else {}


async def read(place: SandboxPlace) -> Credentials:
    """Read the credentials that ``place`` selects: the service account or a kubeconfig.

    Runs the kubeconfig's exec plug-in, if any. Called again when the API server returns 401.

    Raises ``Unavailable`` with the reason; never quotes a secret.
    """
    configuration: Any = library.load().Configuration()
    if _in_cluster(place):
        source = "the service account"
        _load_service_account(configuration)
        tls, material = _tls(configuration)
    else:
        source = str(place.kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config")
        tls, material = await _load_kubeconfig(configuration, source, place)
    return Credentials(
        host=str(configuration.host).rstrip("/"),
        tls=tls,
        server_hostname=configuration.tls_server_name or None,
        proxy=configuration.proxy or None,
        material=material,
        source=source,
        configuration=configuration,
    )


def _in_cluster(place: SandboxPlace) -> bool:
    wants_file = place.kubeconfig is not None or place.context is not None
    return not wants_file and bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and SERVICE_ACCOUNT.exists()


def _exists(paths: str) -> bool:
    return any(Path(path).expanduser().is_file() for path in paths.split(":") if path)


def _load_service_account(configuration: Any) -> None:
    loader = library.load().incluster_config
    try:
        loader.load_incluster_config(client_configuration=configuration)
    except (loader.ConfigException, OSError) as error:
        raise Unavailable(f"the pod's service account cannot be used: {error}.") from error


async def _load_kubeconfig(configuration: Any, paths: str, place: SandboxPlace) -> tuple[ssl.SSLContext | None, str]:
    """Fill ``configuration`` and create the TLS context; no key from the kubeconfig is left on disk."""
    kube_config = library.load().kube_config
    if not _exists(paths):
        raise Unavailable(f"there is no kubeconfig at {paths}: set sandbox.kubeconfig or $KUBECONFIG.")
    directory, lock = await asyncio.to_thread(temporary.make_directory, PREFIX)
    try:
        async with asyncio.timeout(place.api_timeout):
            await kube_config.load_kube_config(
                config_file=paths,
                context=place.context,
                client_configuration=configuration,
                persist_config=False,
                temp_file_path=str(directory),
            )
        return _tls(configuration)
    except TimeoutError as error:
        raise Unavailable(f"the credentials plug-in of {paths} did not answer in {place.api_timeout:g} s.") from error
    except kube_config.ConfigException as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise Unavailable(f"the kubeconfig {paths} cannot be used: {reason[:200]}") from error
    except Exception as error:
        # A malformed file makes the library raise all kinds of errors; their text may quote a secret.
        raise Unavailable(f"the kubeconfig {paths} cannot be used ({type(error).__name__}).") from error
    finally:
        kube_config._cleanup_temp_files()
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


def _tls(configuration: Any) -> tuple[ssl.SSLContext | None, str]:
    """The TLS context, and a digest of what it was made from."""
    if not str(configuration.host).startswith("https"):
        return None, ""
    material = hashlib.sha256(repr(bool(configuration.verify_ssl)).encode())
    for file in (configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file):
        material.update(hashlib.sha256(Path(file).read_bytes()).digest() if file else b"-")
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context, material.hexdigest()
