"""Validation rules beyond a setting's type: checks of single values and of combinations. Add new rules here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from sshgate.config import host_names, values
from sshgate.config.model import (
    Access,
    Address,
    Config,
    Egress,
    GitHost,
    Home,
    Limits,
    Model,
    Models,
    Network,
    Profile,
    Proxy,
    Resources,
    SandboxPlace,
    Ssh,
    Tls,
    Traces,
    Web,
)

# All other numbers must be more than 0.
MAY_BE_ZERO = frozenset(
    {
        "idle", "detached", "drain", "keepalive", "warm", "settle", "authfail", "noauth", "grace_exceeded", "crash",
        "min", "share_lifetime",
    }
)  # fmt: skip
# Each has a port at which other gateways ask whether it lives; the manifests open as many.
MOST_WORKERS = 32
LAST_PORT = 65_535
# Checks of strings and of the strings in lists and mappings; they raise ``ValueError``.
CHECKS: Mapping[tuple[type, str], Callable[[str], object]] = {
    (Ssh, "proxy_protocol"): values.network,
    (Web, "proxy_protocol"): values.network,
    (Limits, "penalty_exempt"): values.network,
    (Access, "accept_env"): values.accepted_variables,
    (Access, "accept_env_forced"): values.accepted_variables,
    (SandboxPlace, "namespace"): values.dns_label,
    (SandboxPlace, "gateway"): values.dns_label,
    (Network, "probe"): values.probe,
    (Model, "upstream"): values.upstream,
    (Model, "server_tools"): values.server_tool,
    (Web, "public_url"): values.public_url,
    (Proxy, "addresses"): values.network,
    (Proxy, "secret_header"): values.header,
    (Proxy, "user_header"): values.header,
    (Traces, "endpoint"): values.collector,
    (Egress, "allow"): host_names.pattern,
    (GitHost, "upstream"): values.upstream,
    (Egress, "private"): values.private,
    (Profile, "description"): values.description,
    (Profile, "shell"): values.absolute,
    (Profile, "image"): values.image,
    (Resources, "requests"): values.quantity,
    (Resources, "limits"): values.quantity,
    (Home, "size"): values.quantity,
    (Home, "path"): values.absolute,
}
# Files and directories that must exist.
MUST_BE: Mapping[tuple[type, str], Callable[[Path], bool]] = {
    (Access, "user_ca"): Path.is_file,
    (SandboxPlace, "kubeconfig"): Path.is_file,
    (Models, "prices"): Path.is_file,
    (Tls, "cert"): Path.is_file,
    (Tls, "key"): Path.is_file,
    (Proxy, "secret_file"): Path.is_file,
    (Traces, "headers_file"): Path.is_file,
    (Profile, "binds"): Path.is_dir,
}

# Settings of profiles that only pods have.
_OF_PODS = ("node_selector", "tolerations", "runtime_class", "pod_overrides")

# Those that `sshgate broker` reads. It need not have the other files that the gateways' settings name.
OF_BROKER = frozenset({(Models, "prices")})


def resolve_paths(config: Config, here: Path) -> Config:
    """Resolve the default paths of ``config`` against ``here``, the directory of the configuration file."""
    return replace(
        config,
        ssh=replace(config.ssh, host_keys=here / config.ssh.host_keys),
        access=replace(config.access, authorized_keys=here / config.access.authorized_keys),
        broker=replace(config.broker, secret=here / config.broker.secret),
    )


def resolve_section_paths(section: object, here: Path) -> object:
    """Do the same for a section that exists only if the file has it (``web``, ``web.tls``)."""
    if isinstance(section, Web):
        return replace(section, secret=here / section.secret)
    if isinstance(section, Tls):
        return Tls(here / section.cert, here / section.key)
    return section


def cross_field_errors(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the settings that contradict each other, as (keys, clause).

    The error is reported at the line of the first of the keys that the file has.
    """
    local = config.sandbox.provider == "local"
    if clause := workers_error(config):
        yield ("workers", "sandbox.provider"), clause
    if local and (clause := _open_to_others("ssh.listen", config.ssh.listen)):
        yield ("ssh.listen", "sandbox.provider"), clause
    listening = {"ssh.listen": config.ssh.listen, "telemetry.listen": config.telemetry.listen}
    if config.web is not None:
        listening["web.listen"] = config.web.listen
    for (one, where), (other, there) in combinations(listening.items(), 2):
        if where is not None and there is not None and _overlap(where, there):
            yield (other, one), f"{other}: {there} is the address of {one} as well: choose another port"
    penalties = config.limits.penalties
    if penalties is not None and penalties.min > penalties.max:
        clause = "limits.penalties.min: it is more than max, so that no address would be refused; write penalties: null"
        yield ("limits.penalties.min", "limits.penalties.max"), clause
    if (config.ssh.public_port or 1) > LAST_PORT:
        yield ("ssh.public_port",), f"ssh.public_port: {config.ssh.public_port} is no port: the last one is {LAST_PORT}"
    if config.web is not None:
        yield from _web(config.web, local)
    if config.telemetry.traces is not None and not config.telemetry.traces.endpoint:
        yield ("telemetry.traces",), "telemetry.traces: name the collector, such as endpoint: http://127.0.0.1:4318"
    yield from _models(config)
    yield from _git(config)
    for name, profile in config.profiles.items():
        if profile.binds and not local:
            key = f"profiles.{name}.binds"
            yield (key,), f"{key}: only the local provider has it; use pod_overrides.volumes"
        if profile.network == "none" and profile.pod_overrides.get("hostNetwork"):
            key = f"profiles.{name}.network"
            yield (key,), f"{key}: no network policy applies to a pod with hostNetwork, so it cannot be none"


def _open_to_others(setting: str, listen: Address) -> str | None:
    """Return why local sandboxes cannot be offered at this address, as a clause; ``None`` if they can."""
    if values.is_loopback(listen):
        return None
    return (
        f"{setting}: sandboxes on this machine itself are for its own users, and {listen} is open to others: write "
        f"127.0.0.1:{listen.port}, or provider: kubernetes"
    )


def _overlap(one: Address, other: Address) -> bool:
    """Return whether one process cannot listen on both. No name is resolved."""
    hosts = {values.ip_of(address.host) or address.host for address in (one, other)}
    versions = {getattr(host, "version", None) for host in hosts}
    same = len(hosts) == 1 or (len(versions) == 1 and any(getattr(host, "is_unspecified", False) for host in hosts))
    return one.port == other.port != 0 and same


def _models(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    if config.broker.port > LAST_PORT:
        yield ("broker.port",), f"broker.port: {config.broker.port} is not a port"
    elif config.broker.port < 1024:
        yield ("broker.port",), "broker.port: programs in a sandbox cannot listen below 1024: write 4711"
    if config.broker.listen is not None and not config.broker.secret.is_file():
        clause = (
            f"broker.secret: there is no file {config.broker.secret}: make one with "
            "`head -c 32 /dev/urandom | base64`, and give it to gateways and `sshgate broker`"
        )
        yield ("broker.secret", "broker.listen"), clause
    for provider in ("anthropic", "openai", "gemini"):
        model, key = getattr(config.models, provider), f"models.{provider}.keys"
        # With a broker of its own, the gateway has no keys.
        if model is not None and model.keys is not None and config.broker.listen is None and not model.keys.exists():
            yield (key,), f"{key}: there is no file or directory {model.keys}"
        if model is not None and model.upstream is not None and model.upstream.endswith(("/v1", "/v1beta")):
            where = f"models.{provider}.upstream"
            yield (where,), f"{where}: agents ask for a path that begins with the version: leave it out here"
    for name, profile in config.profiles.items():
        models, environment = f"profiles.{name}.models", f"profiles.{name}.environment"
        for provider in profile.models:
            if getattr(config.models, provider) is None:
                example = f"models: {{{provider}: {{keys: FILE}}}}, or {{}} for keys that users bring"
                yield (models,), f"{models}: there is no models.{provider}: write {example}"
        for variable in profile.environment:
            if profile.models and values.is_credential(variable):
                clause = f"{environment}: {variable} would hand a key to every program in its sandboxes"
                yield (environment, models), f"{clause}: put it into the file that models names as keys"


def _git(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    for host, one in config.git.items():
        if host_names.canonical(host) != host:
            yield (f"git.{host}", "git"), f"git.{host}: {host!r} is no name of a host: write it as in github.com"
        if one.keys is None:
            yield (f"git.{host}", "git"), f"git.{host}.keys: name the file with the token"
        elif config.broker.listen is None and not one.keys.exists():
            yield (f"git.{host}", "git"), f"git.{host}.keys: there is no file or directory {one.keys}"
    for name, profile in config.profiles.items():
        for host in profile.git:
            if host not in config.git:
                yield (f"profiles.{name}.git",), f"profiles.{name}.git: there is no git.{host}: write it with its keys"


def workers_error(config: Config) -> str | None:
    """Return what is wrong with the number of workers, as a clause; ``None`` if it can be used."""
    if config.workers > 1 and config.sandbox.provider == "local":
        return "workers: local sandboxes belong to one process: write workers: 1, or provider: kubernetes"
    if config.workers > MOST_WORKERS:
        return f"workers: {config.workers} are too many: at most {MOST_WORKERS} share the ports"
    return None


def _web(web: Web, local: bool) -> Iterator[tuple[tuple[str, ...], str]]:
    clause = _open_to_others("web.listen", web.listen)
    if local and clause is not None:
        yield ("web.listen", "web"), clause
    elif clause is not None and web.tls is None and web.public_url is None and web.proxy is None:
        clause = f"web.listen: passwords and terminals would cross the network to {web.listen} in the clear"
        yield ("web.listen", "web"), f"{clause}: give tls, or the proxy that does TLS"
    if web.proxy is not None and not web.proxy.addresses:
        yield ("web.proxy",), "web.proxy: name the addresses that the proxy connects from"
    if web.proxy is not None and web.proxy.secret_file is not None and web.public_url is None:
        clause = "web.proxy.secret_file: with a proxy that logs people in, say web.public_url"
        more = "else a page of any name that is made to point at the proxy would count as ours"
        yield ("web.proxy.secret_file", "web.proxy"), f"{clause}: {more}"


def ignored_settings(config: Config) -> list[str]:
    """Return one clause for each setting that is given but has no effect, or not the one that it seems to have."""
    found = []
    local = config.sandbox.provider == "local"
    if config.network.probe != "auto" and local:
        found.append("network.probe has no effect with local sandboxes: no network policy applies to them")
    used = {provider for profile in config.profiles.values() for provider in profile.models}
    for provider in ("anthropic", "openai", "gemini"):
        if getattr(config.models, provider) is not None and provider not in used:
            found.append(f"models.{provider} has no effect: no profile lists it in its models")
    used_hosts = {host for profile in config.profiles.values() for host in profile.git}
    found += [
        f"git.{host} has no effect: no profile lists it in its git" for host in config.git if host not in used_hosts
    ]
    for name, profile in config.profiles.items():
        without_effect = (
            ("warm", profile.warm, "each starts in some 65 ms"),
            ("network", profile.network == "none", "none of them has a network"),
            ("home", profile.home is not None, "they keep nothing"),
            *((key, getattr(profile, key), "they are no pods") for key in _OF_PODS),
        )
        for key, given, why in without_effect if local else ():
            if given:
                found.append(f"profiles.{name}.{key} has no effect with local sandboxes: {why}")
        if profile.egress is not None and profile.network != "none" and not local:
            found.append(
                f"profiles.{name}.egress closes nothing by itself: its sandboxes reach besides what network policies "
                "allow; write network: none"
            )
    return found
