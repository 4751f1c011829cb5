"""Address and credentials of the API server, read with kubernetes_asyncio.

Importing the library takes a tenth of a second even without its models (see ``library``), so only this module
imports it, and only when needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import signal
import ssl
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sshgate.config.model import SandboxPlace
from sshgate.errors import Unavailable
from sshgate.providers.kubernetes.api import library
from sshgate.sandbox import temporary
from sshgate.stream.tasks import within

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
# Of the directory that a client certificate from a kubeconfig is in while it is loaded.
PREFIX = "sshgate-kubeconfig-"
PLUG_IN_READ_AHEAD = 64 * 1024
# How long to wait for the end of a plug-in that was killed; one that waits for a file server may not end.
KILLED_SECONDS = 1.0


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
    if kube_config.ExecProvider.__module__ != __name__:
        kube_config.ExecProvider = _provider(kube_config)
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
        reason = f"the credentials plug-in of {paths} did not answer in {place.api_timeout:g} s and was killed."
        raise Unavailable(reason) from error
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


def _provider(kube_config: Any) -> Any:
    """The library's ``ExecProvider``, except that cancelling ``run`` kills the plug-in, with its children.

    The library leaves them running. It also reads all of the output before the errors: a plug-in that prints more of
    those than a pipe holds would hang.
    """

    class ExecProvider(kube_config.ExecProvider):  # type: ignore[misc]
        def __init__(self, settings: Any) -> None:
            super().__init__(settings)
            self._may_ask = settings.safe_get("interactiveMode") != "Never"

        async def run(self, previous_response: str | None = None) -> Any:
            terminal = self._may_ask and sys.stdin is not None and sys.stdin.isatty()
            information = {"apiVersion": self.api_version, "kind": "ExecCredential", "spec": {"interactive": terminal}}
            environment = {**self.env, "KUBERNETES_EXEC_INFO": json.dumps(information)}
            status, out, errors = await _run(self.args, environment, terminal)
            refused: type[Exception] = kube_config.ConfigException
            if status:
                raise refused(f"the plug-in ended with status {status}. {errors.strip().decode(errors='replace')}")
            answer = json.loads(out)
            if answer["apiVersion"] != self.api_version:
                raise refused(f"the plug-in has not answered in {self.api_version}.")
            return answer["status"]

    return ExecProvider


async def _run(argv: list[str], environment: dict[str, str], terminal: bool) -> tuple[int | None, bytes, bytes]:
    """Run a program to its end; returns its status, output and errors. Cancelling kills its process group.

    ``terminal``: it may ask the user, so it stays in our own group, and only it is killed.
    """
    pipe = asyncio.subprocess.PIPE
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.subprocess_exec(
        partial(asyncio.subprocess.SubprocessStreamProtocol, limit=PLUG_IN_READ_AHEAD, loop=loop),
        *argv, env=environment, stdin=None if terminal else asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe,
        start_new_session=not terminal,
    )  # fmt: skip
    process = asyncio.subprocess.Process(transport, protocol, loop)
    try:
        out, errors = await process.communicate()
    except BaseException:
        # Also when it has ended: a child of it may keep its output open.
        with contextlib.suppress(ProcessLookupError):
            if terminal:
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
        await within(KILLED_SECONDS, process.wait())
        raise
    finally:
        transport.close()
    return process.returncode, out, errors


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
