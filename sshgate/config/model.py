"""The settings, grouped by concern, with units and defaults. Values only; ``load`` reads them from a file.

Durations are in seconds (written ``30s``, ``8h`` in the file). Sizes are in bytes (written ``512Ki``, ``4Gi``), except
quantities that are passed to Kubernetes as text. Where ``None`` is allowed, the field's text says what it means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NewType


@dataclass(frozen=True, slots=True)
class Address:
    """An address to listen on. ``host`` is an IPv4 or IPv6 address or a name; port 0 picks a free port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Ssh:
    """The SSH front end."""

    listen: Address = Address("0.0.0.0", 2222)
    public_port: int | None = None
    """The port that users connect to, if another one than that of ``listen`` leads there (a node port, a balancer). For
    the commands that the page and ``ssh -s USER@HOST config`` show; ``None``: no other."""
    host_keys: Path = Path("keys/host")
    """A directory. If it holds no host key, an ed25519 and an RSA key are created in it."""
    login_grace: float = 120.0
    """Seconds from the TCP connection to the end of authentication (OpenSSH's LoginGraceTime). Long enough to type a
    passphrase or to touch a security key."""
    keepalive: float = 30.0
    """Seconds between keepalive requests to a silent client (OpenSSH's ClientAliveInterval); 0: none are sent."""
    keepalive_count: int = 3
    """Unanswered keepalive requests after which the connection is closed (OpenSSH's ClientAliveCountMax)."""
    banner: str | None = None
    """Shown by the client before authentication."""
    greeting: str | None = None
    """Shown before the first prompt of an interactive shell only."""
    older_key_exchanges: bool = False
    """Offer key exchanges on NIST curves as well, for clients without curve25519: net-ssh without its x25519 gem, those
    of FIPS builds. Diffie-Hellman groups are never offered."""
    rekey_bytes: int = 1 << 30
    rekey_seconds: float = 3600.0
    channels_per_connection: int = 128
    """Sessions open at the same time on one connection (OpenSSH's MaxSessions, which is 10 by default)."""
    proxy_protocol: tuple[str, ...] = ()
    """Addresses or networks of load balancers that send the client's address in a PROXY header, version 1 or 2. The
    header is required from these and an error from others."""
    forwards_per_connection: int = 200
    """Forwarded connections open at the same time on one connection, including listeners of ``-R``."""
    fast_path: bool = True
    """Handle packets in a way that costs less than asyncssh's own. False helps to find out whether a fault is in it."""
    drain: float = 10.0
    """Seconds that running sessions have to end after SIGTERM before they are cut."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who may log in, and which variables clients may set."""

    authorized_keys: Path = Path("keys/users")
    """A directory of OpenSSH authorized_keys files, each named after its user."""
    user_ca: Path | None = None
    """Public keys of certificate authorities, one per line; ``None``: only those of ``cert-authority`` key lines."""
    accept_env: tuple[str, ...] = (
        "LANG", "LC_*", "COLORTERM", "TERM_PROGRAM", "TERM_PROGRAM_VERSION", "NO_COLOR", "TZ",
        "GIT_PROTOCOL", "ANTHROPIC_*", "CLAUDE_*", "OPENAI_API_KEY", "GEMINI_API_KEY",
        "SSHGATE_PROFILE", "SSHGATE_NAME", "SSHGATE_RECEIPT",
    )  # fmt: skip
    """Patterns of the variables that a client may set. TERM is part of the terminal request instead."""
    accept_env_forced: tuple[str, ...] = ("LANG", "LC_*", "TZ", "TERM", "COLORTERM", "NO_COLOR", "GIT_PROTOCOL")
    """Used instead of ``accept_env`` if the key or certificate forces a command."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of a certificate chain and its key, in PEM. They are reloaded when they change."""

    cert: Path = Path("keys/tls.crt")
    key: Path = Path("keys/tls.key")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A trusted reverse proxy in front of the web front end."""

    addresses: tuple[str, ...] = ()
    """Addresses or networks that it connects from. X-Forwarded-For, -Prefix and -Proto are trusted from these."""
    secret_file: Path | None = None
    """A secret that the proxy sends with each request to vouch for a user's name; ``None``: it logs nobody in."""
    secret_header: str = "X-Sshgate-Secret"
    user_header: str = "X-Forwarded-User"


@dataclass(frozen=True, slots=True)
class Web:
    """The web front end."""

    listen: Address = Address("0.0.0.0", 31000)
    public_url: str | None = None
    """The URL that users open, with the base path; ``None``: any host name that leads to ``listen``."""
    tls: Tls | None = None
    """``None``: plain HTTP, for loopback and behind a proxy."""
    secret: Path = Path("keys/web")
    """A file with the key that signs logins, created at the first start. Gateways that share it share logins."""
    users_file: Path | None = None
    """A file of lines ``USER:HASH``, written by ``sshgate passwd USER``; ``None``: no password logins."""
    proxy: Proxy | None = None
    proxy_protocol: tuple[str, ...] = ()
    """Load balancers that send a PROXY header, as in ``ssh.proxy_protocol``. Does not make them a trusted ``proxy``."""
    login_lifetime: float = 12 * 3600.0
    """Seconds until a browser has to log in again."""
    token_lifetime: float = 30 * 86_400.0
    """Seconds until a program's API token expires."""
    share_lifetime: float = 86_400.0
    """The most seconds for which a link shows a held session to others; 0: nobody can make one."""
    sessions_per_user: int = 20
    """Sessions of one user at the same time, including ended ones whose result was not viewed yet."""
    login_attempts: int = 10
    """Failed logins per minute of one user from one address; five times as many from one address in all."""
    upload_bytes: int = 64 << 30
    """The largest file that can be uploaded."""


@dataclass(frozen=True, slots=True)
class SandboxPlace:
    """Where sandboxes are created."""

    provider: Literal["kubernetes", "local"] = "kubernetes"
    kubeconfig: Path | None = None
    """``None``: the pod's own service account, else $KUBECONFIG, else ~/.kube/config."""
    context: str | None = None
    """A context of the kubeconfig; ``None``: its current one."""
    namespace: str = "claudecode-terminal"
    gateway: str | None = None
    """This gateway's name, as shown on its sandboxes; ``None``: the host name (in a pod, the pod's name). A second
    gateway on the same machine gets a number appended."""
    anchor: str | None = "sshgate-anchor"
    """A ConfigMap in the namespace that is set as owner of the objects created there, so that uninstalling deletes
    them. If it does not exist, they have no owner. Homes never have one."""
    api_timeout: float = 8.0
    """Timeout of an API request in seconds; after it the API server counts as unavailable."""


@dataclass(frozen=True, slots=True)
class Network:
    """The network of sandboxes."""

    probe: str = "auto"
    """``HOST:PORT``: an address that the network policy forbids; no program starts in a pod before it is closed there.
    ``auto``: the API server's service, if the namespace has a policy and the cluster enforces it. ``off``: nothing."""


@dataclass(frozen=True, slots=True)
class ProfileLimits:
    """Time limits of one profile."""

    max_lifetime: float = 8 * 3600.0
    """Seconds after which a sandbox ends in any case. The kubelet enforces it as well."""
    idle: float = 1800.0
    """Seconds without any data after which a shell on a terminal that runs no program ends; 0: never."""
    detached: float = 600.0
    """Seconds for which a web session without a client is kept if it runs no program. Likewise a sandbox, named or of
    a connection, without a channel and without a running program."""
    start: float = 120.0
    """Seconds that a cold start may take in total."""
    unschedulable: float = 8.0
    """Seconds to wait for a node with room. Raise it if a cluster autoscaler adds nodes."""
    sessions: int = 20
    """Held sessions in one sandbox (see ``Profile.hold``)."""
    sessions_per_user: int = 100
    """Held sessions of one user in all their named sandboxes, as these say at a login that begins one."""
    reattach: float = 60.0
    """Seconds for which the connection to a held session is opened again when it breaks."""


@dataclass(frozen=True, slots=True)
class Resources:
    """Kubernetes resource quantities by resource name, as in a container's ``resources``."""

    requests: Mapping[str, str] = field(
        default_factory=lambda: {"cpu": "100m", "memory": "256Mi", "ephemeral-storage": "512Mi"}
    )
    """A missing request defaults to the limit; without one for ephemeral storage a node would hold few sandboxes."""
    limits: Mapping[str, str] = field(default_factory=lambda: {"cpu": "2", "memory": "4Gi", "ephemeral-storage": "8Gi"})


@dataclass(frozen=True, slots=True)
class Home:
    """A volume that outlives its named sandbox and is mounted again in the next one of that name."""

    size: str = "10Gi"
    """The size of the volume claim, as a Kubernetes quantity."""
    storage_class: str | None = "local-path"
    """``local-path`` comes with k3s; ``None``: the cluster's default class."""
    path: str = "/home/dev"
    """The mount path: the home directory of the image's user."""


@dataclass(frozen=True, slots=True)
class Forward:
    """What may be forwarded. Forwards use the sandbox's network, never the gateway's."""

    loopback: bool = True
    """``-L``, ``-D``, ``-W``, ``-J`` to ports on the sandbox's localhost and to its Unix sockets."""
    elsewhere: bool = False
    """The same to other hosts that the sandbox can reach."""
    remote: bool = True
    """``-R``: listeners on the sandbox's localhost, whose connections are forwarded to the user's machine."""
    agent: bool = False
    """``-A``: any program in the sandbox can then sign with the user's keys while the user is connected."""


Provider = Literal["anthropic", "openai", "gemini"]
"""A provider of models, or rather its protocol."""


@dataclass(frozen=True, slots=True)
class Egress:
    """Names that a sandbox may connect to through the proxy on its own loopback, without a network of its own."""

    allow: tuple[str, ...] = ()
    """``name``, ``*.name`` (every name below it), either with ``:port`` (without: 443), or a preset: ``@pypi``,
    ``@npm``, ``@debian``, ``@github``, ``@golang``, ``@crates``. TLS only, but ``http://`` at port 80."""
    private: tuple[str, ...] = ()
    """Networks of private addresses that a listed name may stand for, such as that of a mirror in the company."""
    log: bool = True
    """Emit an event for each allowed connection. Refused ones have one, up to a rate for each sandbox."""


Dollars = NewType("Dollars", float)
"""An amount of money."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent on models, by ``models.prices``; ``None``: any amount. Requests under way may exceed it."""

    user_day_usd: Dollars | None = None
    """Of one user within a day (UTC), in all sandboxes."""
    sandbox_usd: Dollars | None = None
    """Of one sandbox, as long as it lives."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A named kind of sandbox."""

    name: str = "default"
    """The profile's key in ``profiles``; it cannot be set as a field in the file."""
    description: str = ""
    """A few words for users who choose a profile on the page. Not inherited by ``extends``."""
    image: str = "claudecode-sandbox:latest"
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "Never"
    scope: Literal["channel", "connection"] = "connection"
    """``connection``: one sandbox for all channels of a connection. ``channel``: a new one for each channel."""
    shell: str = "/bin/bash"
    """The login shell. If the image lacks it, the account's shell is used, then /bin/sh."""
    hold: Literal["named", "always", "never"] = "named"
    """Programs on terminals outlive their clients, and the next login joins them: in named sandboxes, or in all. Where
    the image has no python3, they do not."""
    allow: tuple[str, ...] = ("*",)
    """Patterns of the users who may use this profile."""
    resources: Resources = Resources()
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables for every program. Those that the client sets override them."""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    runtime_class: str | None = None
    warm: int = 0
    """The size of the pool of warm sandboxes (Kubernetes only, as the three settings below)."""
    refill_per_minute: int = 300
    """Warm sandboxes created per minute at most, so that refilling an empty pool does not compete with logins."""
    settle: float = 3.0
    """Seconds for which a pod must be ready before a login can claim it, unless a launcher parked in it has found the
    network policy in force; see ``network.probe``."""
    parked: tuple[Literal["terminal", "pipe", "resident"], ...] = ("terminal", "pipe", "resident")
    """Launchers parked in each warm sandbox; an empty list: each program is started by an exec of its own. The
    resident, which keeps held sessions, waits only where one can begin in a warm sandbox (see ``hold``)."""
    home: Home | None = None
    """Named sandboxes of this profile get a persistent home (Kubernetes only); ``None``: they get none."""
    network: Literal["policy", "none"] = "policy"
    """``policy``: its sandboxes reach what the network policies of their namespace allow. ``none``: nothing, not even
    names (DNS), by the label ``sshgate.dev/network: none``, for which the manifests have a policy. Local sandboxes have
    no network in any case."""
    forward: Forward = Forward()
    egress: Egress | None = None
    """``None``: there is no proxy. It closes nothing by itself; see ``network``. Needs python3 in the image."""
    git: tuple[str, ...] = ()
    """Hosts of ``git`` that programs in it clone from, fetch from and push to, by https."""
    models: tuple[Provider, ...] = ()
    """Providers of models (see ``Models``) that programs in it reach through the broker. Needs python3 in the image."""
    budget: Budget = Budget()
    """Of each user in this profile, beside ``models.budget``."""
    limits: ProfileLimits = ProfileLimits()
    pod_overrides: Mapping[str, Any] = field(default_factory=dict)
    """A raw pod spec fragment, merged last; lists are merged by ``name``. The container is called ``shell``."""
    binds: tuple[Path, ...] = ()
    """Local provider only: directories of this machine that are mounted writable at the same path."""

    @property
    def brokered(self) -> bool:
        """Whether its sandboxes have the broker's port."""
        return bool(self.models or self.git) or self.egress is not None


@dataclass(frozen=True, slots=True)
class Model:
    """A provider of models, as the broker reaches it."""

    upstream: str | None = None
    """The base URL, without ``/v1``, of the provider or of any server with its protocol; ``None``: the provider's."""
    keys: Path | None = None
    """A file with the API key, or a directory with a file for each user. Read again when it changes. ``None``: only the
    keys that users bring (``SendEnv ANTHROPIC_API_KEY``), which come before those of files."""
    allow: tuple[str, ...] = ("*",)
    """Patterns of the models that may be asked."""
    server_tools: tuple[str, ...] = ()
    """Tools that the provider itself may run, such as ``web_search``; ``mcp`` for servers that it connects to, ``url``
    for images and documents that it fetches. Each of these can carry data out of a sandbox. Also what costs more than
    ``models.prices`` has: ``fast``, ``priority`` (a service tier), ``inference_geo``, ``background`` (its cost is never
    known), and what such tools cost by use."""


@dataclass(frozen=True, slots=True)
class Models:
    """The providers of models. Their keys never enter a sandbox; ``None``: not offered."""

    anthropic: Model | None = None
    openai: Model | None = None
    gemini: Model | None = None
    prices: Path | None = None
    """A file of prices, of the form of ``sshgate/broker/prices.yaml``; ``None``: that one."""
    budget: Budget = Budget()


@dataclass(frozen=True, slots=True)
class GitHost:
    """A server of git over https, whose token stays outside."""

    keys: Path | None = None
    """A file with a token, or with ``USER:TOKEN``; or a directory with such a file for each user. Required."""
    upstream: str | None = None
    """The base URL; ``None``: ``https://HOST``."""
    allow: tuple[str, ...] = ("*",)
    """Patterns of the repositories, such as ``team/*``."""
    push: bool = True
    """Whether ``git push`` is passed on."""


@dataclass(frozen=True, slots=True)
class Broker:
    """What answers, outside, a port on the loopback of sandboxes."""

    port: int = 4711
    """The port in sandboxes."""
    listen: Address | None = None
    """Where ``sshgate broker`` listens and gateways find it; ``None``: each gateway is its own broker."""
    secret: Path = Path("keys/broker")
    """A file with 32 random bytes or more that both know. Used only with ``listen``."""
    certificate: Path | None = None
    """A file with the certificate of `sshgate broker`, which gateways trust for the host of ``listen``: TLS between the
    two. A second one in it is trusted as well. Read at the start. ``None``: no TLS, only what ``secret`` encrypts."""
    private_key: Path | None = None
    """Its private key. Only `sshgate broker` reads it."""
    connections: int = 2048
    """Open connections of all sandboxes together."""
    connections_per_sandbox: int = 128


@dataclass(frozen=True, slots=True)
class Group:
    """Users who share a limit."""

    users: tuple[str, ...] = ()
    """Patterns of the users' names. A user may be in several groups."""
    sandboxes: int = 20
    """Sandboxes of all members together."""
    homes: int | None = None
    """Homes of all members together; ``None``: only ``homes_per_user`` applies."""


@dataclass(frozen=True, slots=True)
class Penalties:
    """Penalties of an address for connections that end without a login (OpenSSH's PerSourcePenalties)."""

    authfail: float = 5.0
    """Seconds for failed authentication."""
    noauth: float = 1.0
    """Seconds for disconnecting after the key exchange without an authentication attempt. A connection without a key
    exchange is not penalised: it is evicted when ``limits.unauthenticated`` is reached."""
    grace_exceeded: float = 10.0
    """Seconds for exceeding ``ssh.login_grace`` after the key exchange."""
    crash: float = 90.0
    """Seconds for an error inside the gateway."""
    min: float = 15.0
    """Seconds of penalty from which on the address is refused, until the whole penalty has expired."""
    max: float = 600.0
    """The largest penalty of an address in seconds."""
    sources: int = 65_536
    """Addresses that are remembered. When full, the one whose penalty expires first is forgotten."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on numbers and rates, over all profiles."""

    sandboxes_per_user: int = 40
    sandboxes: int = 100
    """The total, including warm ones. Warm ones are evicted for logins."""
    homes_per_user: int = 5
    """Homes that one user may keep, whether or not their sandboxes run."""
    groups: Mapping[str, Group] = field(default_factory=dict)
    starts_per_minute: int | None = 300
    """Sandboxes that one user may start per minute, all of them at once if need be; ``None``: no limit."""
    connections_per_source: int = 100
    """Open connections of one user from one address. The limits below count those that have not logged in."""
    unauthenticated: int = 100
    """Connections that have not logged in yet, counted separately for SSH and web. When full, the one that has made
    the least progress is evicted; of several, the oldest of the address that has the most."""
    unauthenticated_per_source: int = 10
    """The same from one address. Only those older than ten seconds count, so that a burst of logins may be larger."""
    unauthenticated_per_network: int = 40
    """The same from one IPv6 /48, whatever their age."""
    penalties: Penalties | None = Penalties()
    """Penalties for SSH connections that end without a login; ``None``: no penalties."""
    penalty_exempt: tuple[str, ...] = ("127.0.0.0/8", "::1")
    """Networks without penalties: those that many people share, such as a load balancer without a PROXY header."""
    auth_attempts: int = 6
    """Failed attempts on one connection (OpenSSH's MaxAuthTries)."""


@dataclass(frozen=True, slots=True)
class Log:
    """The gateway's log, on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "human", "json"] = "auto"
    """``auto``: ``human`` on a terminal, ``json`` otherwise."""


Share = NewType("Share", float)
"""A number from 0 (none) to 1 (all)."""


@dataclass(frozen=True, slots=True)
class Traces:
    """OpenTelemetry traces, exported by OTLP over HTTP. Anything else follows the SDK's OTEL_* variables."""

    endpoint: str = ""
    """The collector's URL, ``http[s]://host[:port][/path]``; ``/v1/traces`` is appended. Required."""
    headers_file: Path | None = None
    """A file of lines ``name: value``, sent as HTTP headers, such as a token; read at start-up. ``None``: none."""
    sample: Share = Share(1.0)
    """The share of connections that are traced, each with everything that happens in it."""


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Outputs for machines: health, metrics, audit events, traces."""

    listen: Address | None = None
    """Where /healthz, /readyz and /metrics are served, without authentication; ``None``: nowhere."""
    audit: Path | None = None
    """A file to which audit events are appended as JSON lines; ``None``: they are only logged."""
    traces: Traces | None = None
    """``None``: no traces."""


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration."""

    workers: int = 1
    """Processes that share the ports, each of which uses one core. They act like that many gateways."""
    ssh: Ssh = Ssh()
    access: Access = Access()
    web: Web | None = None
    """``None``: no web server."""
    sandbox: SandboxPlace = SandboxPlace()
    network: Network = Network()
    models: Models = Models()
    git: Mapping[str, GitHost] = field(default_factory=dict)
    """By the host's name."""
    broker: Broker = Broker()
    profiles: Mapping[str, Profile] = field(default_factory=lambda: {"default": Profile()})
    limits: Limits = Limits()
    log: Log = Log()
    telemetry: Telemetry = Telemetry()
